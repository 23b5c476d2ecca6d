"""Reading a study back from its ledger, as plain records; needs neither data nor backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from softprompt import waits
from softprompt.analysis.costs import (
    curve_of,
    embedding_costs,
    method_cost,
    predictor_costs,
    shared_steps,
    training_tokens,
)
from softprompt.analysis.records import Cost, Floats, PromptId, Results, RunScore, StrategyScore
from softprompt.study.build import build_grid
from softprompt.study.grid import ARM_STRATEGIES, Facts, Grid, StudyCell
from softprompt.study.ledger import Ledger, Record
from softprompt.study.settings import Study

STRATEGY_OF = {
    "weighted_average": "weighted_average",
    "mixture_transfer": "multitask_mixture",
    "race": "race",
    **ARM_STRATEGIES,
}
"""Kinds of cells that tune on their own, and the names they have in the tables."""


def collect(study: Study, ledger: Ledger, facts: Facts) -> Results:
    """What is finished of a study, as records. Unfinished cells are absent."""
    grid = build_grid(study, facts)
    held = {kind: ledger.keys(kind) for kind in {kind for kind, _ in grid.cells}}
    source_steps = sum(cell.steps for cell in grid.of_kind("source"))
    runs, strategies = [], []
    further = _further(grid, ledger, held)
    evaluated = [(c, grid.cells[kind, key]) for c in grid.of_kind("evaluation") for kind, key in [c.spec["of"]]]
    planned = dict.fromkeys(_place(parent) for _, parent in evaluated if parent.kind not in ("baseline", "transfer"))
    for cell, parent in waits.each("reading results", evaluated):
        of_kind, of_key = parent.id
        if cell.key not in held["evaluation"] or of_key not in held[of_kind]:
            continue
        evaluation = _whole(further, parent.id, ledger.read("evaluation", cell.key).result)
        if evaluation is None or _score(study, evaluation) is None:
            continue
        record = ledger.read(of_kind, of_key)
        if of_kind in ("baseline", "transfer"):
            source = _source_of(parent)
            runs.append(_run(study, str(parent.spec["target"]), int(parent.spec["seed"]), source, record, evaluation))
        else:
            cost, shared = method_cost(parent, ledger), shared_steps(parent, grid, source_steps)
            strategies.append(_strategy(study, _place(parent), parent, record, evaluation, cost, shared))
    embeddings, others = _embeddings(study, grid, ledger, held)
    width = next((prompt.shape[1] for prompt in embeddings.values()), 0)
    return Results(
        sources=study.sources,
        targets=study.targets,
        seeds=study.seeds,
        runs=tuple(runs),
        embeddings=embeddings,
        other_embeddings=others,
        strategies=tuple(strategies),
        planned=tuple(planned),
        predictors=_predictors(study, facts, grid, ledger, held),
        report_half=1 if study.protocol == "halves" else None,
        embedding_costs=embedding_costs(study, runs),
        predictor_costs=predictor_costs(study, grid, ledger, held),
        source_steps=source_steps,
        prompt_parameters=study.target.prompt_length * width,
        race_keep=study.strategies.race_keep,
        race_rows=study.strategies.race_rows,
    )


def _further(
    grid: Grid, ledger: Ledger, held: Mapping[str, set[str]]
) -> dict[tuple[str, str], Mapping[str, Any] | None]:
    """What prompts gave on a further task's rows (`Study.also_on`), by their cells; None where it is not finished."""
    return {
        (str(kind), str(key)): ledger.read(cell.kind, cell.key).result if cell.key in held[cell.kind] else None
        for cell in grid.of_kind("further_evaluation")
        for kind, key in [cell.spec["of"]]
    }


def _whole(
    further: Mapping[tuple[str, str], Mapping[str, Any] | None], of: tuple[str, str], evaluation: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """An evaluation, averaged with that on the further rows where the study has such; None while those are missing."""
    if of not in further:
        return evaluation
    other = further[of]
    if other is None:
        return None
    pairs = zip(evaluation["halves"], other["halves"], strict=True)
    halves = [None if a is None or b is None else (a + b) / 2 for a, b in pairs]
    return {**evaluation, "score": (evaluation["score"] + other["score"]) / 2, "halves": halves}


def _source_of(cell: StudyCell) -> PromptId | None:
    return (str(cell.spec["source"]), int(cell.spec["source_seed"])) if cell.kind == "transfer" else None


def _run(
    study: Study, target: str, seed: int, source: PromptId | None, record: Record, evaluation: Mapping[str, Any]
) -> RunScore:
    score = _score(study, evaluation)
    assert score is not None
    train, validation = training_tokens(record.kind, record)
    return RunScore(
        target=target,
        seed=seed,
        score=score,
        source=source,
        halves=_pair(evaluation["halves"]),
        seconds=float(record.result["seconds"]),
        steps=int(record.result["steps"]),
        diverged=record.result["status"] == "non_finite",
        curve=curve_of(record.result),
        train_tokens=train,
        validation_tokens=validation,
    )


def _strategy(
    study: Study, place: tuple[str, str, int], cell: StudyCell, record: Record, evaluation: Mapping[str, Any], cost: Cost,
    shared: int,
) -> StrategyScore:  # fmt: skip
    score = _score(study, evaluation)
    assert score is not None
    tuned = record.result.get("tuned_parameters")
    return StrategyScore(
        strategy=place[0],
        similarity=place[1],
        k=place[2],
        target=str(cell.spec["target"]),
        seed=int(cell.spec["seed"]),
        score=score,
        halves=_pair(evaluation["halves"]),
        cost=cost,
        tuned_parameters=None if tuned is None else int(tuned),
        source_steps=shared,
        survivor=str(record.result.get("survivor", "")),
        race_field=tuple(int(n) for n in record.result.get("fields", ())),
    )


def _place(cell: StudyCell) -> tuple[str, str, int]:
    """(strategy, similarity, k) of a method's cell; ``sharpt, no-latent-space`` is a strategy of its own."""
    ablation = str(cell.spec.get("ablation", ""))
    name = f"{STRATEGY_OF[cell.kind]}, {ablation}" if ablation else STRATEGY_OF[cell.kind]
    return name, str(cell.spec.get("similarity", "")), int(cell.spec.get("k", 0))


def skill_relations(study: Study, ledger: Ledger, facts: Facts) -> tuple[list[str], Floats] | None:
    """SharPT's relations of tasks by shared skills, averaged over finished spaces; None without one."""
    cells = [cell for cell in build_grid(study, facts).of_kind("latent_space") if "ablation" not in cell.spec]
    found = [
        ledger.read(cell.kind, cell.key).result.get("relations") for cell in cells if ledger.has(cell.kind, cell.key)
    ]
    known = [relation for relation in found if relation]
    if not known:
        return None
    return list(known[0]["tasks"]), np.mean([np.asarray(relation["cosine"]) for relation in known], axis=0)


def _score(study: Study, evaluation: Mapping[str, Any]) -> float | None:
    value = evaluation["halves"][1] if study.protocol == "halves" else evaluation["score"]
    return None if value is None else float(value)


def _pair(halves: Sequence[Any]) -> tuple[float, float] | None:
    first, second = halves
    return None if first is None or second is None else (float(first), float(second))


def _embeddings(
    study: Study, grid: Grid, ledger: Ledger, held: Mapping[str, set[str]]
) -> tuple[dict[PromptId, Floats], dict[str, dict[PromptId, Floats]]]:
    main: dict[PromptId, Floats] = {}
    others: dict[str, dict[PromptId, Floats]] = {}
    # A task that is source and target has two embeddings; the source's stands under its name unless only the other is
    # there. Similarities between tasks are the papers' for disjoint sources and targets.
    for cell in reversed(grid.of_kind("embedding")):
        if cell.key in held["embedding"]:
            place = str(cell.spec["name"]), int(cell.spec["seed"])
            step = int(cell.spec["step"])
            table = main if step == study.embedding.step else others.setdefault(str(step), {})
            table[place] = np.asarray(ledger.tensors("embedding", cell.key)["prompt"], dtype=np.float64)
    if study.embedding.best:
        best: dict[PromptId, Floats] = {}
        for cell in [*grid.of_kind("baseline"), *grid.of_kind("source")]:
            if cell.key in held[cell.kind] and int(cell.spec["seed"]) in study.seeds:
                tensors = ledger.tensors(cell.kind, cell.key)
                if "best" in tensors:
                    place = str(cell.spec.get("source", cell.spec.get("target"))), int(cell.spec["seed"])
                    best[place] = np.asarray(tensors["best"], dtype=np.float64)
        if best:
            others["best checkpoint"] = best
    return main, others


def _predictors(
    study: Study, facts: Facts, grid: Grid, ledger: Ledger, held: Mapping[str, set[str]]
) -> dict[str, dict[PromptId, dict[str, float]]]:
    """Further rankings: the sources' sizes, which cost nothing, and what the study measured."""
    rows = {source: sum(facts.data[task].train_rows for task in study.tasks_of(source)) for source in study.sources}
    found = _data_sizes(study, rows) if any(rows.values()) else {}
    for cell in grid.of_kind("prediction"):
        if cell.key in held["prediction"]:
            _add_predictions(found, ledger.read("prediction", cell.key).result, str(cell.spec["target"]))
    return found


def _data_sizes(study: Study, rows: Mapping[str, int]) -> dict[str, dict[PromptId, dict[str, float]]]:
    prompts = [(source, seed) for source in study.sources for seed in study.seeds]
    return {"data-size": {(s, r): dict.fromkeys(study.targets, float(rows[s])) for s, r in prompts}}


def _add_predictions(
    found: dict[str, dict[PromptId, dict[str, float]]], result: Mapping[str, Any], target: str
) -> None:  # fmt: skip
    for name, by_prompt in result["values"].items():
        table = found.setdefault(name, {})
        for prompt, value in by_prompt.items():
            source, seed = str(prompt).rsplit(".", 1)
            if value is not None:
                table.setdefault((source, int(seed)), {})[target] = float(value)
