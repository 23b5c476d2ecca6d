"""Races as cells of a study: successive halving over all its source prompts, in one batch (`softprompt.methods.spot.race`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.errors import NonFiniteError
from softprompt.methods.spot.race import halving, race_rungs
from softprompt.study.grid import Pack, StudyCell
from softprompt.study.ledger import Ledger
from softprompt.study.measures import prompt_of
from softprompt.study.settings import Study

if TYPE_CHECKING:
    from torch import Tensor

    from softprompt.study.runner import PromptRunner, Tell
    from softprompt.training.runs import Run, RunResult
    from softprompt.training.settings import TrainSettings

SCRATCH = "scratch"
"""The start from scratch that races along, among the names of source prompts."""


def run_race(
    runner: PromptRunner, study: Study, pack: Pack, cell: StudyCell, ledger: Ledger, folder: Path,
    provenance: Mapping[str, Any], tell: Tell | None,
) -> None:  # fmt: skip
    """One race on one target and seed; its survivor is evaluated like any other target run.

    Raises:
        NonFiniteError: no run is left, or none was validated.
    """
    from softprompt.training.loop import Looks

    settings = study.target.having(embedding_step=0, patience=0)
    names, runs, prompts = _field(runner, study, cell, settings, ledger)
    keep = float(cell.spec["keep"])
    rungs = race_rungs(settings.steps, len(runs), keep)
    results = runner.train(
        study, pack, settings, runs, prompts, folder, tell,
        leave=halving(dict.fromkeys([run.name for run in runs], cell.name), keep, rungs),
        looks=Looks(at=rungs, rows=int(cell.spec["look_rows"])),
    )  # fmt: skip
    left = [i for i, result in enumerate(results) if result.status != "dropped" and result.best]
    if not left:
        raise NonFiniteError(f"no run of the race {cell.name} reached a validation: lower the learning rate.")
    best = max(left, key=lambda i: results[i].best_score)
    survivor = results[best]
    story = {**provenance, "cell": cell.name, "seconds": _sum(results, "seconds"), "evidence": survivor.evidence}
    for child in pack.made:
        if child.kind == "evaluation" and child.made_by == cell.id:
            found = runner.halves(study, runs[best], survivor.predictions)
            ledger.write(child.kind, child.key, child.identity, found, {}, story)
    tensors = {"best": survivor.best["prompt"], "final": survivor.final["prompt"]}
    ledger.write(cell.kind, cell.key, cell.identity, _told(names, results, best, rungs), tensors, story)


def _field(
    runner: PromptRunner, study: Study, cell: StudyCell, settings: TrainSettings, ledger: Ledger
) -> tuple[list[str], list[Run], list[Tensor]]:
    """Names, runs and starting prompts: one from scratch, then every source prompt."""
    from softprompt.prompts.init import default_init, initial_prompt
    from softprompt.study.runner import selecting_rows
    from softprompt.training.data import start_of

    backbone, seed = runner.backbone(study), int(cell.spec["seed"])
    data = runner.data(study, str(cell.spec["target"]), settings)
    names, starts = [SCRATCH], [start_of(backbone, data.task, "scratch")]
    for (source, source_seed), key in zip(cell.spec["names"], cell.spec["sources"], strict=True):
        names.append(f"{source}.{source_seed}")
        prompt = prompt_of(ledger, "source", key, cell.name)
        starts.append(default_init("transfer", prompt=prompt, origin=names[-1]))
    select = selecting_rows(study, data)
    runs = [data.run(f"race-{i}", seed, select_rows=select) for i in range(len(names))]
    return names, runs, [initial_prompt(backbone, start, settings.prompt_length, seed) for start in starts]


def _told(names: Sequence[str], results: Sequence[RunResult], best: int, rungs: Sequence[int]) -> dict[str, Any]:
    """The survivor's story, with the steps, positions and seconds of all racers."""
    own = {n: v for n, v in results[best].plain().items() if n not in ("predictions", "name", "evidence")}
    return {
        **own,
        **{name: _sum(results, name) for name in ("steps", "tokens", "eval_tokens", "seconds")},
        "validation_tokens": sum(choosing_tokens(result) for result in results),
        "survivor": names[best],
        "rungs": list(rungs),
        "fields": [sum(r.steps > before for r in results) for before in (0, *rungs)],
        "racers": [
            {
                "name": name,
                "status": result.status,
                "steps": result.steps,
                "score": max((row["score"] for row in result.curve), default=None),
                "tokens": result.tokens,
                "eval_tokens": result.eval_tokens,
            }
            for name, result in zip(names, results, strict=True)
        ],
    }


def choosing_tokens(result: RunResult) -> float:
    """Validation tokens that choices were made on: without the final measurement, by its share of rows.

    A dropped run has had no final measurement.
    """
    if not result.evidence:
        return float(result.eval_tokens)
    chosen = sum(int(row.get("rows", result.evidence["select_rows"])) for row in result.curve)
    rows = chosen + int(result.evidence["report_rows"])
    return result.eval_tokens * chosen / rows if rows else 0.0


def _sum(results: Sequence[RunResult], name: str) -> Any:
    return sum(getattr(result, name) for result in results)
