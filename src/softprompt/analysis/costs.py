"""What the cells of a study cost, as a transfer alone would have to pay it (`softprompt.methods.method`).

Prompt tuning counts two forward tokens a training position (forward, and back to the prompt), model tuning three
(gradients of the weights as well), validation one; so does a position of SharPT's instance encoder, which reads each row
once. (An encoder smaller than the backbone is dearer in this count than in truth.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from softprompt.analysis.records import Cost, PromptId, RunScore, Validation
from softprompt.methods.spot.predictor_names import tuning_steps
from softprompt.study.grid import MODEL_KINDS, Grid, StudyCell
from softprompt.study.ledger import Ledger, Record
from softprompt.study.settings import Study

TRAINING_FACTOR = 2
"""As `softprompt.methods.method.TRAINING_FACTOR`, which needs torch."""
MODEL_TRAINING_FACTOR = 3


def curve_of(result: Mapping[str, Any]) -> tuple[Validation, ...]:
    """The validations of a training; empty where the ledger has none."""
    return tuple(
        Validation(step=int(row["step"]), score=float(row["score"]), loss=_finite(row["loss"]))
        for row in result.get("curve", ())
    )


def _finite(loss: Any) -> float | None:
    return None if loss is None or not math.isfinite(float(loss)) else float(loss)


def training_tokens(kind: str, record: Record) -> tuple[float, float]:
    """Forward-token equivalents of a training: (its training, the validations of its curve).

    The ledger counts the final measurement among the validation tokens; it is taken off by its share of rows.
    """
    result = record.result
    if "validation_tokens" in result:  # a race, whose runs had different validations
        return TRAINING_FACTOR * float(result["tokens"]), float(result["validation_tokens"])
    factor = MODEL_TRAINING_FACTOR if kind in MODEL_KINDS else TRAINING_FACTOR
    evidence = record.provenance.get("evidence") or {}
    validated = float(result.get("eval_tokens", 0))
    selected = len(result.get("curve", ())) * int(evidence.get("select_rows", 0))
    measured = int(evidence.get("report_rows", 0))
    if selected + measured:
        validated *= selected / (selected + measured)
    return factor * float(result.get("tokens", 0)) + float(result.get("encoder_tokens", 0)), validated


def training_cost(kind: str, record: Record) -> Cost:
    """Steps, forward-token equivalents and seconds of a training."""
    train, validation = training_tokens(kind, record)
    return Cost(steps=float(record.result["steps"]), tokens=train + validation, seconds=float(record.result["seconds"]))


def method_cost(cell: StudyCell, ledger: Ledger) -> Cost:
    """What a method's run cost on its target: its own training, and the mixture that was tuned for this target alone."""
    cost = training_cost(cell.kind, ledger.read(*cell.id))
    if cell.kind == "mixture_transfer":
        kind, key = cell.parents[0]
        cost += training_cost(kind, ledger.read(kind, key))
    return cost


def shared_steps(cell: StudyCell, grid: Grid, source_steps: int) -> int:
    """Steps on the sources that a method's run rests on, and that every target shares."""
    if cell.kind in ("weighted_average", "mixture_transfer"):
        return source_steps if cell.kind == "weighted_average" else 0
    return sum(grid.cells[parent].steps for parent in cell.parents)


def embedding_costs(study: Study, runs: Sequence[RunScore]) -> dict[PromptId, Cost]:
    """The task embedding of every target and seed, priced by the run from scratch that it was made on the way of."""
    found: dict[PromptId, Cost] = {}
    for run in runs:
        if run.source is None and run.seed in study.seeds and run.steps:
            found[run.target, run.seed] = run.cost_until(study.embedding.step, 0)
    return found


def predictor_costs(
    study: Study, grid: Grid, ledger: Ledger, held: Mapping[str, set[str]]
) -> dict[str, dict[str, Cost]]:
    """What ranking all source prompts for a target took, by predictor; those that only look at data are free."""
    found: dict[str, dict[str, Cost]] = {"data-size": dict.fromkeys(study.targets, Cost())}
    for cell in grid.of_kind("prediction"):
        if cell.key not in held["prediction"]:
            continue
        result = ledger.read("prediction", cell.key).result
        tokens = result["forward_tokens"]
        whole = float(sum(tokens.values()))
        for name, own in tokens.items():
            steps = tuning_steps([name]) * len(cell.spec["names"])
            seconds = float(result.get("seconds", 0.0)) * (float(own) / whole if whole else 0.0)
            found.setdefault(name, {})[str(cell.spec["target"])] = Cost(steps=steps, tokens=float(own), seconds=seconds)
    return found
