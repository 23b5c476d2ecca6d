"""A stand-in for the hub: every data set of the catalog as parquet files on the disk, in the hub's own columns, some rows each.

`write` makes the files; `patched` lets ``datasets.load_dataset`` read them, whatever way a `HubSource` asks. What is not on the
hub (CxC, Newsroom) goes into a folder for ``$SOFTPROMPT_DATA``.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.models import corpus

from softprompt.tasks.declaration import DECLARED, Declared

SPLITS = ("train", "validation", "test")


def write(folder: Path, rows: int = 20) -> Path:
    """The data sets of all tasks; gives the folder of those that are not on the hub."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for declared in DECLARED:
        if declared.hub is None:
            place = folder / "local" / "tasks" / (declared.folder or declared.name)
            place.mkdir(parents=True, exist_ok=True)
            for split in ("train", "validation"):
                made = _rows(declared, split, rows)
                (place / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
            continue
        repo, config, _ = declared.hub
        for split in SPLITS:
            for name in declared.splits.get(split, (split,)):
                path = _path(folder, repo, config, name)
                # Data sets that several tasks share (MRQA, RTE) hold the rows of each.
                own = pa.Table.from_pylist(_rows(declared, split, rows))
                if path.exists():
                    there = pq.read_table(path)
                    if declared.keep is None:
                        continue
                    own = pa.concat_tables([there, own], promote_options="default")
                path.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(own, path)
    return folder / "local"


@contextmanager
def patched(folder: Path) -> Iterator[list[str]]:
    """``datasets.load_dataset`` reads the folder; gives the list of what was opened."""
    import datasets

    real = datasets.load_dataset
    opened: list[str] = []

    def load_dataset(path: str, config: str | None = None, **settings: Any) -> Any:
        split, files = settings["split"], settings.get("data_files")
        if files is not None:  # hf://datasets/owner/name@revision/config/split/*.parquet
            place = next(iter(files.values())).removeprefix("hf://datasets/")
            owner, rest = place.split("/", 1)
            name, _, tail = rest.partition("@")
            _, config, split, _ = tail.split("/")
            path = f"{owner}/{name}"
        file = _path(folder, path, config, split)
        opened.append(f"{path} {split}")
        if not file.exists():
            raise FileNotFoundError(f"{path} has no {split} of {config}")
        return real("parquet", data_files={"rows": str(file)}, split="rows", streaming=settings.get("streaming", False))

    datasets.load_dataset = load_dataset  # type: ignore[assignment]
    try:
        yield opened
    finally:
        datasets.load_dataset = real


def _path(folder: Path, repo: str, config: str | None, split: str) -> Path:
    return folder / repo.replace("/", "--") / (config or "default") / f"{split}.parquet"


def _rows(declared: Declared, split: str, count: int) -> list[dict[str, Any]]:
    draw = random.Random(f"{declared.name}/{split}")
    texts = corpus(count * 8, draw.randrange(10**6))
    back = {ours: theirs for theirs, ours in declared.rename.items()}
    made = []
    for i in range(count):
        row = _MAKERS[declared.form.__name__](declared, i, split, texts[8 * i : 8 * i + 8])
        if declared.id_column:
            row.setdefault(declared.id_column, f"{split}-{i}" if declared.id_column != "idx" else i)
        if declared.name.startswith("mrqa_"):
            row["subset"] = _subset(declared)
            row["qid"] = f"{declared.name}-{split}-{i}"
        if declared.name in ("race_middle", "race_high", "race"):
            row["example_id"] = f"{'high' if declared.name == 'race_high' else 'middle'}{i}.txt"
        made.append({back.get(name, name): value for name, value in row.items()})
    return made


def _subset(declared: Declared) -> str:
    """The value of MRQA's column that a task keeps, found by asking it."""
    assert declared.keep is not None
    known = ("SQuAD", "NewsQA", "TriviaQA-web", "SearchQA", "HotpotQA", "NaturalQuestionsShort")
    return next(name for name in known if declared.keep({"subset": name}))


def _fields(declared: Declared, i: int, split: str, texts: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = dict(zip(declared.settings["columns"], texts, strict=False))
    words: Mapping[str, str] | None = declared.settings.get("words")
    column = declared.settings.get("label", "label")
    keys = list(words) if words else None
    count = len(declared.labels or ())
    row[column] = int(keys[i % len(keys)]) if keys else i % count
    if split == "test":
        row[column] = -1 if keys is None else row[column]
    if declared.settings.get("idx", "idx") == "uid":
        row["uid"] = f"{split}-{i}"
    return row


def _similarity(declared: Declared, i: int, split: str, texts: list[str]) -> dict[str, Any]:
    return {"sentence1": texts[0], "sentence2": texts[1], "label": (i % 11) / 2}


def _multirc(declared: Declared, i: int, split: str, texts: list[str]) -> dict[str, Any]:
    idx = {"paragraph": i // 10, "question": i // 4, "answer": i}
    return {"question": texts[0], "answer": texts[1], "paragraph": texts[2], "label": i % 2, "idx": idx}


def _record(declared: Declared, i: int, split: str, texts: list[str]) -> dict[str, Any]:
    return {
        "query": f"{texts[0]} @placeholder", "entities": ["cat", "dog"], "passage": texts[1],
        "answers": [] if split == "test" else ["cat"], "idx": {"passage": i, "query": i},
    }  # fmt: skip


def _wsc(declared: Declared, i: int, split: str, texts: list[str]) -> dict[str, Any]:
    return {
        "text": "the cat sees the dog near it .", "span1_text": "the cat", "span1_index": 0, "span2_text": "it",
        "span2_index": 6, "label": 1 if split == "train" else i % 2,
    }  # fmt: skip


def _prefix_lm(declared: Declared, i: int, split: str, texts: list[str]) -> dict[str, Any]:
    return {"text": " ".join(texts), "timestamp": "2019", "url": "x"}


def _question_answer(declared: Declared, i: int, split: str, texts: list[str]) -> dict[str, Any]:
    given, answer = declared.settings, [texts[1].split()[0]]
    column = given.get("answers", "answers")
    value: Any = answer
    if column == "answers_spans":
        value = {"spans": answer, "types": ["span"]}
    elif not declared.name.startswith("mrqa_"):
        value = {"text": answer, "answer_start": [0]}
    return {given.get("question", "question"): texts[0], given.get("context", "context"): texts[1], column: value}


def _choices(declared: Declared, i: int, split: str, texts: list[str]) -> dict[str, Any]:
    given, options = declared.settings, declared.settings["options"]
    row: dict[str, Any] = dict(zip(given["texts"], texts, strict=False))
    count = len(declared.labels or ())
    if isinstance(options, str):
        row[options] = texts[4 : 4 + count]
    else:
        row.update(zip(options, texts[4:], strict=False))
    first = given.get("first")
    row[given.get("answer", "label")] = i % count if first is None else chr(ord(first) + i % count)
    return row


def _translate(declared: Declared, i: int, split: str, texts: list[str]) -> dict[str, Any]:
    return {"translation": {"en": texts[0], declared.settings["target"][0]: texts[1]}}


def _generate(declared: Declared, i: int, split: str, texts: list[str]) -> dict[str, Any]:
    given = declared.settings
    row: dict[str, Any] = {given["source"]: texts[0], given["target"]: texts[1]}
    if given.get("references"):
        row[given["references"]] = [texts[1]]
    return row


def _tag_words(declared: Declared, i: int, split: str, texts: list[str]) -> dict[str, Any]:
    return {"text": texts[0], "labels": [i % len(declared.labels or (1,))]}


_MAKERS = {
    "fields": _fields, "similarity": _similarity, "multirc": _multirc, "record": _record, "wsc": _wsc,
    "prefix_lm": _prefix_lm, "question_answer": _question_answer, "choices": _choices, "translate": _translate,
    "generate": _generate, "tag_words": _tag_words,
}  # fmt: skip
