"""The answers of a study's runs beside the gold ones, where the targets' rows are at hand: what comparing by rows needs.

A report needs no data. Where it is there (generated tasks, the study's folder, $SOFTPROMPT_DATA), and is what the study was
run with, answers that the ledger kept can be compared row by row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from softprompt.analysis.records import PromptId
from softprompt.errors import SoftpromptError
from softprompt.study.build import build_grid
from softprompt.study.grid import Facts
from softprompt.study.ledger import Ledger
from softprompt.study.settings import Study

if TYPE_CHECKING:
    from softprompt.tasks.example import Example
    from softprompt.tasks.task import Task

Ints = NDArray[np.int64]
RunId = tuple[str, PromptId | None, int]
"""(target, source prompt or None for a start from scratch, seed)."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """One target's rows and the answers of its runs.

    Attributes:
        task: gives the score.
        examples: the validation rows, in order.
        canonical: how gold texts look after the backbone's tokenizer.
        answers: of every finished run, one a row.
    """

    task: Task
    examples: Sequence[Example]
    canonical: Callable[[str], str]
    answers: Mapping[RunId, Sequence[str]]

    def score(self, run: RunId, rows: Sequence[int]) -> float:
        """Percent of a run on some rows; a row may stand several times."""
        given = self.answers[run]
        examples = [self.examples[r] for r in rows]
        return float(self.task.score([given[r] for r in rows], examples, canonical=self.canonical)["score"])

    def scorer(self, runs: Sequence[RunId], rows: Sequence[int]) -> Callable[[int, Ints], float]:
        """A function of a run's place and of places among the rows to percent; fast where the score is a mean over rows."""
        by_row = np.array([[self.score(run, [r]) for r in rows] for run in runs])
        whole = np.array([self.score(run, rows) for run in runs])
        if np.allclose(by_row.mean(axis=1), whole, atol=1e-6):
            return lambda run, places: float(by_row[run, places].mean())
        return lambda run, places: self.score(runs[run], [rows[p] for p in places])


Given = Mapping[RunId, "tuple[Sequence[str], float]"]
"""Answers and score of every finished run from scratch or a source prompt."""


def answers_of(study: Study, ledger: Ledger, facts: Facts) -> tuple[dict[str, Answers], dict[str, str]]:
    """Gold answers by target, and for each target whose rows are not at hand the reason; unfinished ones are in neither."""
    validation = {target: facts.data[target].validation for target in study.targets}
    return _checked(study, _given(study, ledger, facts), validation)


def _checked(
    study: Study, kept: Given, validation: Mapping[str, str]
) -> tuple[dict[str, Answers], dict[str, str]]:  # fmt: skip
    found: dict[str, Answers] = {}
    why: dict[str, str] = {}
    for target in study.targets:
        answers = {run: given for run, (given, _) in kept.items() if run[0] == target}
        scores = {run: score for run, (_, score) in kept.items() if run[0] == target}
        if not answers:
            continue
        try:
            gold = _answers_of(study, validation.get(target, ""), target, answers)
        except SoftpromptError as error:
            why[target] = str(error)
            continue
        if isinstance(gold, str):
            why[target] = gold
        elif any(abs(gold.score(run, range(len(gold.examples))) - score) > 1e-6 for run, score in scores.items()):
            why[target] = "the scores in the ledger do not follow from its answers and this data"
        else:
            found[target] = gold
    return found, why


def _answers_of(study: Study, wanted: str, target: str, answers: Mapping[RunId, Sequence[str]]) -> Answers | str:
    from softprompt.tasks.catalog import load_task

    if target.startswith("hf:"):  # naming it is asking the network
        return "its data is on the hub"
    task = load_task(target, study.data or None)
    if task.source.describe().get("kind") in ("hub", "missing"):
        return "its data is not on this machine"
    for form in (None, *task.wordings):  # a decoder's study reads natural language
        worded = task if form is None else task.worded(form)
        split = worded.split("validation", max_rows=study.rows_of(target)["validation"])
        if split.fingerprint == wanted:
            task = worded
            break
    else:
        return "the data on this machine is not what the study was run with"
    if any(len(given) != len(split.examples) for given in answers.values()):
        return "the ledger does not hold an answer for every row"
    return Answers(task=task, examples=split.examples, canonical=tokenised_form(answers.values()), answers=answers)


def _given(study: Study, ledger: Ledger, facts: Facts) -> dict[RunId, tuple[Sequence[str], float]]:
    """Answers and score of every finished run from scratch or a source prompt."""
    grid = build_grid(study, facts)
    held = ledger.keys("evaluation")
    found: dict[RunId, tuple[Sequence[str], float]] = {}
    for cell in grid.of_kind("evaluation"):
        kind, key = cell.spec["of"]
        if kind not in ("baseline", "transfer") or cell.key not in held or not ledger.has(kind, key):
            continue
        spec = grid.cells[kind, key].spec
        source = (str(spec["source"]), int(spec["source_seed"])) if kind == "transfer" else None
        result = ledger.read("evaluation", cell.key).result
        if "predictions" in result:  # lines may be kept without
            found[str(spec["target"]), source, int(spec["seed"])] = result["predictions"], float(result["score"])
    return found


def tokenised_form(answers: Iterable[Sequence[str]]) -> Callable[[str], str]:
    """How texts look after the backbone's tokenizer, learned from answers: the commonest one that differs in spaces and case.

    A text that no run ever answered stays as it is: nothing is compared with it. That scores computed with this form are
    those of the ledger is checked by `answers_of`.
    """
    seen: dict[str, Counter[str]] = {}
    for given in answers:
        for text, times in Counter(given).items():
            seen.setdefault(_bare(text), Counter())[text] += times
    best = {bare: texts.most_common(1)[0][0] for bare, texts in seen.items()}
    return lambda text: best.get(_bare(text), text)


def _bare(text: str) -> str:
    return "".join(text.split()).casefold()
