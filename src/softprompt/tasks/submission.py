"""GLUE and SuperGLUE submissions: one file per task from a model's predictions, written, zipped and checked.

SuperGLUE takes a zip of jsonl files with ``idx`` and ``label``, GLUE a zip of tsv files with ``index`` and
``prediction``. Every row must be there once, and every label must be one the benchmark knows.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from softprompt.errors import DataError, UnknownNameError, UsageError
from softprompt.tasks.example import Example
from softprompt.tasks.metrics import canonical_labels, class_index, says_referent

Benchmark = Literal["glue", "superglue"]


@dataclass(frozen=True, kw_only=True)
class File:
    """One file of a submission.

    Attributes:
        name: as the benchmark wants it.
        rows: rows of the official test set (answers for MultiRC).
        words: what is written for each label index; None for free text and numbers.
        kind: ``class``, ``number`` (STS-B), ``multirc``, ``record`` or ``wsc``.
    """

    name: str
    rows: int
    words: tuple[Any, ...] | None
    kind: str = "class"


_NLI2 = ("entailment", "not_entailment")
_NLI3 = ("entailment", "neutral", "contradiction")
_TRUE = ("false", "true")

SUPERGLUE: Mapping[str, File] = {
    "boolq": File(name="BoolQ.jsonl", rows=3245, words=_TRUE),
    "cb": File(name="CB.jsonl", rows=250, words=("entailment", "contradiction", "neutral")),
    "copa": File(name="COPA.jsonl", rows=500, words=(0, 1)),
    "multirc": File(name="MultiRC.jsonl", rows=9693, words=(0, 1), kind="multirc"),
    "record": File(name="ReCoRD.jsonl", rows=10000, words=None, kind="record"),
    "rte": File(name="RTE.jsonl", rows=3000, words=_NLI2),
    "wic": File(name="WiC.jsonl", rows=1400, words=_TRUE),
    "wsc": File(name="WSC.jsonl", rows=146, words=("False", "True"), kind="wsc"),
    "axb": File(name="AX-b.jsonl", rows=1104, words=_NLI2),
    "axg": File(name="AX-g.jsonl", rows=356, words=_NLI2),
}

GLUE: Mapping[str, File] = {
    "cola": File(name="CoLA.tsv", rows=1063, words=(0, 1)),
    "sst2": File(name="SST-2.tsv", rows=1821, words=(0, 1)),
    "mrpc": File(name="MRPC.tsv", rows=1725, words=(0, 1)),
    "stsb": File(name="STS-B.tsv", rows=1379, words=None, kind="number"),
    "mnli": File(name="MNLI-m.tsv", rows=9796, words=_NLI3),
    "mnli_mismatched": File(name="MNLI-mm.tsv", rows=9847, words=_NLI3),
    "qnli": File(name="QNLI.tsv", rows=5463, words=_NLI2),
    "qqp": File(name="QQP.tsv", rows=390965, words=(0, 1)),
    "rte": File(name="RTE.tsv", rows=3000, words=_NLI2),
    "glue_rte": File(name="RTE.tsv", rows=3000, words=_NLI2),
}

_BENCHMARKS: Mapping[str, Mapping[str, File]] = {"glue": GLUE, "superglue": SUPERGLUE}


@dataclass(frozen=True, kw_only=True)
class TaskPredictions:
    """A task's predictions for a submission.

    Attributes:
        task: catalog name.
        labels: the task's label words by index; None where it has none.
        examples: in any order; ``extra["idx"]`` gives each its place.
        predictions: generated texts, one for each example.
        canonical: ``decode(encode(text))`` of the backbone's tokenizer, see `Task.score`.
    """

    task: str
    labels: tuple[str, ...] | None
    examples: Sequence[Example]
    predictions: Sequence[str]
    canonical: Callable[[str], str] | None = None


def write_submission(
    target: Path, benchmark: Benchmark, answers: Sequence[TaskPredictions], *, complete: bool = True
) -> dict[str, dict[str, int]]:
    """Write a submission folder, and the zip to upload beside it (``<target>.zip``).

    An invalid answer must still be some label: the first one is written, and counted in the result.

    Args:
        target: a new folder.
        complete: whether every file must have the official number of rows (validation splits have others).

    Returns:
        file name -> ``rows`` and ``invalid`` answers.

    Raises:
        UnknownNameError: where a task is not part of the benchmark.
        UsageError: where ids are missing or repeat, or the files would not pass `check_submission`.
    """
    from softprompt.artifacts import write_bytes, write_folder

    known = _BENCHMARKS[benchmark]
    files: dict[str, bytes] = {}
    report: dict[str, dict[str, int]] = {}
    for one in answers:
        if one.task not in known:
            raise UnknownNameError(f"{benchmark} task", one.task, known)
        file = known[one.task]
        lines, invalid = _lines(file, one, benchmark)
        files[file.name] = ("\n".join(lines) + "\n").encode("utf-8")
        report[file.name] = {"rows": len(one.examples), "invalid": invalid}
    problems = [p for name, data in files.items() for p in _file_problems(benchmark, name, data, complete)]
    if problems:
        raise UsageError(f"the submission would be refused: {problems[0]}")
    write_folder(target, files)
    write_bytes(target.with_name(target.name + ".zip"), _zipped(files))
    return report


def _zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip whose bytes depend on the files alone."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), files[name], zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _lines(file: File, answers: TaskPredictions, benchmark: Benchmark) -> tuple[list[str], int]:
    if len(answers.predictions) != len(answers.examples):
        raise UsageError(
            f"{file.name}: {len(answers.predictions)} predictions for {len(answers.examples)} examples; give one for each."
        )
    values, invalid = _values(file, answers)
    ids: list[Any] = [e.extra.get("idx") for e in answers.examples]
    if any(i is None for i in ids):
        raise UsageError(f"{file.name}: examples without an idx cannot be submitted; use the benchmark's own files.")
    if file.kind == "multirc":
        return _multirc_lines(ids, values), invalid
    if file.kind == "record":
        ids = [i["query"] if isinstance(i, dict) else i for i in ids]
    ordered = sorted(zip((int(i) for i in ids), values, strict=True), key=lambda pair: pair[0])
    if benchmark == "glue":
        return ["index\tprediction", *(f"{i}\t{value}" for i, value in ordered)], invalid
    return [json.dumps({"idx": i, "label": value}, ensure_ascii=False) for i, value in ordered], invalid


def _values(file: File, answers: TaskPredictions) -> tuple[list[Any], int]:
    """What is written for each example, and how many answers were no label."""

    def same(text: str) -> str:
        return (answers.canonical(text) if answers.canonical else text).strip()

    given = [p.strip() for p in answers.predictions]
    if file.kind == "record":
        return [" ".join(text.split()) for text in given], sum(not text for text in given)
    if file.kind == "number":
        return _numbers(given, same)
    if file.kind == "wsc":
        said = [says_referent(p, same(e.targets)) for p, e in zip(given, answers.examples, strict=True)]
        return ["True" if s == 1 else "False" for s in said], sum(s < 0 for s in said)
    if answers.labels is None or file.words is None:
        raise UsageError(f"{file.name}: the task has no label words to submit.")
    words = canonical_labels(answers.labels, same)
    indices = [class_index(text, words) for text in given]
    return [file.words[max(i, 0)] for i in indices], sum(i < 0 for i in indices)


def _numbers(given: Sequence[str], same: Callable[[str], str]) -> tuple[list[float], int]:
    steps = {same(f"{k / 5:.1f}"): k / 5 for k in range(26)}
    values: list[float] = []
    invalid = 0
    for text in given:
        try:
            value = steps[text] if text in steps else float(text)
            good = 0 <= value <= 5
        except ValueError:
            value, good = 0.0, False
        invalid += not good
        values.append(min(max(value, 0.0), 5.0) if value == value else 0.0)
    return values, invalid


def _multirc_lines(ids: Sequence[Any], values: Sequence[int]) -> list[str]:
    passages: dict[int, dict[int, dict[int, int]]] = {}
    for idx, value in zip(ids, values, strict=True):
        answers = passages.setdefault(int(idx["paragraph"]), {}).setdefault(int(idx["question"]), {})
        if int(idx["answer"]) in answers:
            raise UsageError(f"MultiRC.jsonl: answer {idx} stands twice; give each once.")
        answers[int(idx["answer"])] = value
    lines = []
    for passage, questions in sorted(passages.items()):
        listed = [
            {"idx": question, "answers": [{"idx": a, "label": label} for a, label in sorted(answers.items())]}
            for question, answers in sorted(questions.items())
        ]
        lines.append(json.dumps({"idx": passage, "passage": {"questions": listed}}))
    return lines


def check_submission(path: Path, benchmark: Benchmark, *, complete: bool = True) -> list[str]:
    """Problems of a submission folder or zip, one sentence each; none where it would be accepted.

    Args:
        complete: whether all files of the benchmark must be there, with the official number of rows.
    """
    files = _read_submission(path)
    known = {file.name for file in _BENCHMARKS[benchmark].values()}
    problems = [f"{name}: is no file of {benchmark}." for name in sorted(set(files) - known)]
    if complete:
        problems += [f"{name}: is missing." for name in sorted(known - set(files))]
    for name in sorted(set(files) & known):
        problems += _file_problems(benchmark, name, files[name], complete)
    return problems


def _read_submission(path: Path) -> dict[str, bytes]:
    if path.is_dir():
        return {p.name: p.read_bytes() for p in sorted(path.iterdir()) if p.is_file() and not p.name.startswith(".")}
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: is neither a folder nor a zip ({error}).") from error


def _file_problems(benchmark: Benchmark, name: str, data: bytes, complete: bool) -> list[str]:
    file = next(f for f in _BENCHMARKS[benchmark].values() if f.name == name)
    try:
        rows = _parse_tsv(data) if benchmark == "glue" else _parse_jsonl(data, file)
    except (ValueError, KeyError, TypeError) as error:
        return [f"{name}: {error if isinstance(error, ValueError) else f'lacks {error}'}."]
    problems = []
    twice = [i for i, n in Counter(i for i, _ in rows).items() if n > 1]
    if twice:
        problems.append(f"{name}: id {twice[0]} stands {Counter(i for i, _ in rows)[twice[0]]} times.")
    if complete and len(rows) != file.rows:
        problems.append(f"{name}: has {len(rows):,} rows, the test set has {file.rows:,}.")
    elif complete and file.kind not in ("multirc", "record"):
        missing = sorted(set(range(file.rows)) - {i for i, _ in rows})
        if missing:
            problems.append(f"{name}: id {missing[0]} is missing.")
    wrong = next(((i, v) for i, v in rows if not _allowed(file, v, benchmark)), None)
    if wrong is not None:
        words = "a number from 0 to 5" if file.kind == "number" else file.words or "a text"
        problems.append(f"{name}: label {wrong[1]!r} of id {wrong[0]} is not {words}.")
    return problems


def _allowed(file: File, value: Any, benchmark: Benchmark) -> bool:
    if file.kind == "number":
        try:
            return 0 <= float(value) <= 5
        except ValueError:
            return False
    if file.words is None:
        return isinstance(value, str)
    words = [str(w) for w in file.words] if benchmark == "glue" else list(file.words)
    return any(value == w and type(value) is type(w) for w in words)


def _parse_tsv(data: bytes) -> list[tuple[Any, Any]]:
    lines = data.decode("utf-8").splitlines()
    if not lines or lines[0].split("\t") != ["index", "prediction"]:
        raise ValueError("the first line should be index and prediction, a tab between them")
    rows: list[tuple[Any, Any]] = []
    for number, line in enumerate(lines[1:], start=2):
        index, _, value = line.partition("\t")
        if not index.isdecimal() or "\t" in value:
            raise ValueError(f"line {number} should be a number, a tab and a prediction")
        rows.append((int(index), value))
    return rows


def _parse_jsonl(data: bytes, file: File) -> list[tuple[Any, Any]]:
    rows: list[tuple[Any, Any]] = []
    for line in data.decode("utf-8").splitlines():
        row = json.loads(line)
        if file.kind != "multirc":
            rows.append((row["idx"], row["label"]))
            continue
        for question in row["passage"]["questions"]:
            rows += [((row["idx"], question["idx"], a["idx"]), a["label"]) for a in question["answers"]]
    return rows
