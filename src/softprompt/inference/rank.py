"""Which prompt of a library suits some labelled rows: each is tried on them without tuning.

SPoT ranks by task embeddings, which takes a training; the loss of the untuned prompt on the target's rows needs one pass
and ranks sources about as well (docs/evidence.md). Letters: C labels.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from softprompt.backbones.base import Backbone
from softprompt.errors import SoftpromptError
from softprompt.inference.engine import Engine, Prepared, Request, Served
from softprompt.inference.schemas import Ranked, Ranking
from softprompt.tasks.task import Task
from softprompt.tasks.tuned import for_backbone


def rank(
    engine: Engine,
    names: Mapping[str, str],
    rows: Sequence[Mapping[str, Any]],
    *,
    label: str = "label",
    text: Sequence[str] | None = None,
    top_k: int = 10,
) -> Generator[None, None, Ranking]:
    """Try prompts one after the other; yields after each, and returns the ranking.

    Args:
        engine: gives the prompts.
        names: the prompts to try, with their tasks.
        rows: labelled rows of the new task, worded as a task of such rows would be.
        label: their label's column.
        text: the columns to read; all others where None.
        top_k: how many are shown.

    Raises:
        DataError: the rows cannot be read as a task.
    """
    inputs, gold, labels = _worded(engine.backbone, rows, label, text)
    candidates = engine.backbone.tokenize_targets(labels)
    ids = engine.backbone.tokenize_inputs(inputs)
    found: list[Ranked] = []
    left_out: dict[str, str] = {}
    for name, task in names.items():
        yield None
        try:
            found.append(_tried(engine, name, task, (inputs, ids, gold, candidates)))
        except SoftpromptError as error:  # removed since, damaged, or too long with these rows
            left_out[name] = str(error)
    found.sort(key=lambda one: (one.loss, one.model))
    best = [one.model_copy(update={"rank": i}) for i, one in enumerate(found[:top_k], start=1)]
    return Ranking(rows=len(rows), data=best, left_out=left_out)


def _worded(
    backbone: Backbone, rows: Sequence[Mapping[str, Any]], label: str, text: Sequence[str] | None
) -> tuple[list[str], list[int], list[str]]:
    """Inputs, each row's label as a number, and the labels' words."""
    task = for_backbone(
        Task.from_rows(list(rows), validation=list(rows), text=text, label=label, kind="classification"), backbone.kind
    )
    examples = task.split("train").examples
    words = list(task.labels or sorted({example.targets for example in examples}))
    return [e.inputs for e in examples], [words.index(e.targets) for e in examples], words


def _tried(
    engine: Engine, name: str, task: str, asked: tuple[list[str], list[list[int]], list[int], list[list[int]]]
) -> Ranked:
    inputs, ids, gold, candidates = asked
    known = engine.prompter(name)
    plain = Served(prompter=known.prompter, run=known.run, candidates=candidates, scored=True, key=known.key)
    length, depth = known.prompter.prompt_length, sum(map(len, candidates))
    request = Request(prompt=name, text="", as_is=True)
    made = [
        Prepared(request=request, served=plain, worded=text, ids=row, length=length, depth=depth)
        for text, row in zip(inputs, ids, strict=True)
    ]
    for row in made:
        engine.check_fits(row)
    number = {id(row): i for i, row in enumerate(made)}
    loss, right = 0.0, 0
    for part in engine.parts(made):
        for row, scores_C in zip(part, engine.label_scores(part), strict=True):
            answer = gold[number[id(row)]]
            loss -= float(scores_C[answer]) / len(candidates[answer])
            right += int(scores_C.argmax()) == answer
    return Ranked(rank=0, model=name, task=task, loss=loss / len(made), accuracy=100.0 * right / len(made))
