"""Cells of prompts: sources, targets from scratch and from source prompts, mixtures, early embeddings, races, predictions.

A pack of them is one batch of prompts on one backbone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from softprompt.errors import NonFiniteError
from softprompt.methods.spot.predictor_names import MEASURED
from softprompt.study.grid import TARGET_KINDS, Pack, StudyCell
from softprompt.study.making import Making, selecting_rows
from softprompt.study.settings import Study
from softprompt.study.work import settings_of as settings_of_cell
from softprompt.training.settings import TrainSettings

if TYPE_CHECKING:
    from torch import Tensor

    from softprompt.tasks.splits import EncodedSplit
    from softprompt.training.loop import Leave, Looks
    from softprompt.training.runs import Run, RunResult

TEXTS = 500
"""Inputs of each task that text predictors look at."""
SCRATCH = "scratch"
"""The start from scratch that races along, among the names of source prompts."""


def make_prompts(making: Making) -> None:
    """Train the prompts of a pack together and record them."""
    settings = settings_of(making.study, making.pack)
    starts = [_start(making, cell, settings) for cell in making.pack.cells]
    if making.pack.kind in ("source", "baseline"):  # footnote 13: other early checkpoints come from the same run
        early = tuple(s for s in making.study.embedding.other_steps if s != making.study.embedding.step)
        starts = [(replace(run, kept_steps=early), prompt) for run, prompt in starts]
    results = _trained(making, starts, settings)
    for cell, (run, _), result in zip(making.pack.cells, starts, results, strict=True):
        if cell.kind == "embedding":
            if result.embedding is None:
                raise NonFiniteError(f"the task embedding {cell.name} was not reached: {result.note or result.status}.")
            story = making.story(cell, result.seconds, result.evidence)
            making.write(cell, {"steps": cell.spec["step"]}, {"prompt": result.embedding["prompt"]}, story)
        else:
            making.record(cell, run, result, _kept(result))


def make_race(making: Making) -> None:
    """One race on one target and seed; its survivor is evaluated like any other target run.

    Raises:
        NonFiniteError: no run is left, or none was validated.
    """
    from softprompt.methods.method import best_of
    from softprompt.methods.spot.run import race_rules

    (cell,) = making.pack.cells
    settings = making.study.target.having(embedding_step=0, patience=0)
    names, starts = _field(making, cell, settings)
    leave, looks = race_rules(
        dict.fromkeys([run.name for run, _ in starts], cell.name), settings.steps, keep=float(cell.spec["keep"]),
        rows=int(cell.spec["look_rows"]),
    )  # fmt: skip
    results = _trained(making, starts, settings, leave=leave, looks=looks)
    best = results.index(best_of(results))
    survivor = results[best]
    making.record(cell, starts[best][0], survivor, _kept(survivor), _told(names, results, best, looks.at))


def make_prediction(making: Making, cell: StudyCell) -> None:
    """What the study's predictors say of every source prompt on one target."""
    from softprompt.methods.spot.measured import predict

    study, target, started = making.study, str(cell.spec["target"]), time.perf_counter()
    wanted = study.strategies.predictors
    names = [f"{source}.{seed}" for source, seed in cell.spec["names"]]
    prompts = [making.prompt_of("source", key, cell.name).float() for key in cell.spec["sources"]]
    data = making.data(target, study.target)
    found = predict([n for n in wanted if n in MEASURED], making.backbone, prompts, data, study.target)
    values = {name: list(one.values) for name, one in found.items()}
    values |= _from_data(making, cell, data.train)
    result = {
        "values": {name: dict(zip(names, values[name], strict=True)) for name in wanted},
        "forward_tokens": {name: found[name].forward_tokens if name in found else 0 for name in wanted},
        "seconds": time.perf_counter() - started,
    }
    making.write(cell, result, {}, {**making.provenance, "cell": cell.name})


def _from_data(making: Making, cell: StudyCell, train: EncodedSplit) -> dict[str, list[float]]:
    """Predictors that look at the tasks' rows alone."""
    from softprompt.methods.spot.predictors import text_similarities

    study, places = making.study, [source for source, _ in cell.spec["names"]]
    parts = {
        source: [making.data(task, study.source).train for task in study.tasks_of(source)]
        for source in dict.fromkeys(places)
    }
    values = {}
    if "text-similarity" in study.strategies.predictors:
        texts = {s: [e.inputs for part in own for e in part.examples[:TEXTS]] for s, own in parts.items()}
        alike = text_similarities([e.inputs for e in train.examples[:TEXTS]], texts)
        values["text-similarity"] = [alike[source] for source in places]
    if "data-size" in study.strategies.predictors:
        rows = {source: sum(len(part) for part in own) for source, own in parts.items()}
        values["data-size"] = [math.log(rows[source]) for source in places]
    return values


def _kept(result: RunResult) -> dict[str, Tensor]:
    tensors = {"best": result.best.get("prompt"), "final": result.final.get("prompt")}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def _trained(
    making: Making,
    starts: Sequence[tuple[Run, Tensor]],
    settings: TrainSettings,
    leave: Leave | None = None,
    looks: Looks | None = None,
) -> list[RunResult]:
    """Train runs together, or go on with what the pack's folder holds."""
    work = making.work()
    try:
        found = work.train("", starts, settings, leave=leave, looks=looks)
    except NonFiniteError:
        # Every run of the pack diverged. Their results were saved; a study records that and goes on.
        found = work.train("", starts, settings, leave=leave, looks=looks)
    return list(found.values())


def settings_of(study: Study, pack: Pack) -> TrainSettings:
    """The training settings of a pack."""
    first = pack.cells[0]
    settings = settings_of_cell(study, first)
    if pack.kind == "embedding":
        step = int(first.spec["step"])
        return settings.having(steps=step, embedding_step=step, eval_every=step, patience=0)
    wanted = study.embedding.step if pack.kind in ("source", "baseline") else 0
    return settings.having(embedding_step=wanted)


def _start(making: Making, cell: StudyCell, settings: TrainSettings) -> tuple[Run, Tensor]:
    """The run of a cell and the prompt it starts from, float32 [P, H]."""
    from softprompt.prompts.init import default_init, initial_prompt
    from softprompt.training.data import mixture_run, start_of

    backbone, spec, study = making.backbone, cell.spec, making.study
    name = f"{cell.kind}-{cell.key[:24]}"
    seed = int(spec["seed"])
    if cell.kind in TARGET_KINDS or (cell.kind == "embedding" and spec["role"] == "target"):
        data = making.data(str(spec.get("target", spec.get("name"))), settings)
        if cell.kind in ("baseline", "embedding"):
            init = start_of(backbone, data.task, "scratch")
        else:
            init = default_init("transfer", prompt=_given(making, cell), origin=cell.name)
        prompt = initial_prompt(backbone, init, settings.prompt_length, seed)
        select = selecting_rows(study, data)
        return data.run(name, seed, select_rows=select, validated=cell.kind != "embedding"), prompt
    tasks = _mixed(making, cell) if cell.kind == "mixture" else [str(task) for task in spec["tasks"]]
    parts = [making.data(task, settings) for task in tasks]
    start = start_of(backbone, parts[0].task, "source") if len(parts) == 1 else default_init("source")
    prompt = initial_prompt(backbone, start, settings.prompt_length, seed)
    if len(parts) == 1:
        return parts[0].run(name, seed, validated=cell.kind != "embedding"), prompt
    from softprompt.tasks.mixture import proportional_rates

    rates = proportional_rates([len(part.train) for part in parts])
    # A mixture has no validation of its own: its final checkpoint is used (SPoT section 3.3).
    return mixture_run(name, seed, parts, rates, validated_on=parts[0], validated=False), prompt


def _given(making: Making, cell: StudyCell) -> Tensor:
    """The prompt that a transfer starts from."""
    if cell.kind == "weighted_average":
        return _average(making, cell)
    kind, key = cell.parents[0]
    return making.prompt_of(kind, key, cell.name)


def _ranking(making: Making, cell: StudyCell) -> list[tuple[float, int]]:
    """(similarity, place among the sources) of every source prompt, best first."""
    from softprompt.library.similarity import similarity_matrix

    spec = cell.spec
    own = making.ledger.tensors("embedding", spec["own"])["prompt"]
    others = [making.ledger.tensors("embedding", key)["prompt"] for key in spec["embeddings"]]
    similarity = similarity_matrix([own], others, spec["similarity"])[0]
    return sorted(((float(s), i) for i, s in enumerate(similarity)), key=lambda item: (-item[0], item[1]))


def _average(making: Making, cell: StudyCell) -> Tensor:
    from softprompt.methods.spot.strategies import RankedSource, weighted_average

    spec = cell.spec
    keys = {f"{task}.{seed}": key for (task, seed), key in zip(spec["names"], spec["sources"], strict=True)}
    names = list(keys)
    ranking = [
        RankedSource(name=names[i], task=str(spec["names"][i][0]), similarity=s) for s, i in _ranking(making, cell)
    ]
    start = weighted_average(ranking, int(spec["k"]), lambda name: making.prompt_of("source", keys[name], cell.name))
    return start.prompt_PH


def _mixed(making: Making, cell: StudyCell) -> list[str]:
    top = [str(cell.spec["names"][i][0]) for _, i in _ranking(making, cell)[: int(cell.spec["k"])]]
    tasks = [task for source in dict.fromkeys(top) for task in making.study.tasks_of(source)]
    return list(dict.fromkeys([*tasks, str(cell.spec["target"])]))


def _field(making: Making, cell: StudyCell, settings: TrainSettings) -> tuple[list[str], list[tuple[Run, Tensor]]]:
    """Names of a race's starts, and its runs with their prompts: one from scratch, then every source prompt."""
    from softprompt.prompts.init import default_init, initial_prompt

    seed, length = int(cell.spec["seed"]), settings.prompt_length
    target = making.target(cell, settings)
    names, starts = [SCRATCH], [target.start(making.backbone, "race-0", seed, length)]
    for (source, source_seed), key in zip(cell.spec["names"], cell.spec["sources"], strict=True):
        names.append(f"{source}.{source_seed}")
        init = default_init("transfer", prompt=making.prompt_of("source", key, cell.name), origin=names[-1])
        prompt = initial_prompt(making.backbone, init, length, seed)
        starts.append((target.run(f"race-{len(starts)}", seed), prompt))
    return names, starts


def _told(names: Sequence[str], results: Sequence[RunResult], best: int, rungs: Sequence[int]) -> dict[str, Any]:
    """The survivor's story, with the steps, positions and seconds of all racers."""
    return {
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
