"""The gold answers of a study's targets, where their data is at hand: what a paired comparison by rows needs.

A report needs no data. Where it is there (generated tasks, the study's folder, $SOFTPROMPT_DATA), and is what the study was
run with, answers that the ledger kept can be compared row by row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from softprompt.errors import SoftpromptError
from softprompt.study.build import build_grid
from softprompt.study.grid import Facts
from softprompt.study.ledger import Ledger
from softprompt.study.records import PromptId
from softprompt.study.settings import Study

if TYPE_CHECKING:
    from softprompt.tasks.task import Example, Task

RunId = tuple[str, PromptId | None, int]
"""(target, source prompt or None for a start from scratch, seed)."""


@dataclass(frozen=True, kw_only=True)
class Gold:
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
        """Percent of a run on some rows."""
        found = self.answers[run]
        return float(
            self.task.score([found[r] for r in rows], [self.examples[r] for r in rows], canonical=self.canonical)[
                "score"
            ]
        )


def gold_of(study: Study, ledger: Ledger, facts: Facts) -> tuple[dict[str, Gold], dict[str, str]]:
    """Gold answers by target, and for each target whose rows are not at hand the reason; unfinished ones are in neither."""
    found: dict[str, Gold] = {}
    why: dict[str, str] = {}
    kept = _answers(study, ledger, facts)
    for target in study.targets:
        answers = {run: given for run, (given, _) in kept.items() if run[0] == target}
        scores = {run: score for run, (_, score) in kept.items() if run[0] == target}
        if not answers:
            continue
        try:
            gold = _gold(study, facts, target, answers)
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


def _gold(study: Study, facts: Facts, target: str, answers: Mapping[RunId, Sequence[str]]) -> Gold | str:
    from softprompt.tasks.catalog import load_task

    if target.startswith("hf:"):  # naming it is asking the network
        return "its data is on the hub"
    task = load_task(target, study.data or None)
    if task.source.describe().get("kind") in ("hub", "missing"):
        return "its data is not on this machine"
    split = task.split("validation", max_rows=study.validation_rows or None)
    if split.fingerprint != facts.data[target].validation:
        return "the data on this machine is not what the study was run with"
    if any(len(given) != len(split.examples) for given in answers.values()):
        return "the ledger does not hold an answer for every row"
    return Gold(task=task, examples=split.examples, canonical=tokenised_form(answers.values()), answers=answers)


def _answers(study: Study, ledger: Ledger, facts: Facts) -> dict[RunId, tuple[Sequence[str], float]]:
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
        found[str(spec["target"]), source, int(spec["seed"])] = result["predictions"], float(result["score"])
    return found


def tokenised_form(answers: Iterable[Sequence[str]]) -> Callable[[str], str]:
    """How texts look after the backbone's tokenizer, learned from answers: the commonest one that differs in spaces and case.

    A text that no run ever answered stays as it is: nothing is compared with it. That scores computed with this form are
    those of the ledger is checked by `gold_of`.
    """
    seen: dict[str, Counter[str]] = {}
    for given in answers:
        for text, times in Counter(given).items():
            seen.setdefault(_bare(text), Counter())[text] += times
    best = {bare: texts.most_common(1)[0][0] for bare, texts in seen.items()}
    return lambda text: best.get(_bare(text), text)


def _bare(text: str) -> str:
    return "".join(text.split()).casefold()
