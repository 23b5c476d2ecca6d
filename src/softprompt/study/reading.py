"""Reading a study back from its ledger, as plain records; needs neither data nor backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from softprompt.errors import UsageError
from softprompt.study.build import build_grid
from softprompt.study.grid import ARM_STRATEGIES, DataFacts, Facts, Grid, StudyCell
from softprompt.study.ledger import Ledger
from softprompt.study.records import Floats, PromptId, Results, RunScore, StrategyScore
from softprompt.study.settings import Study, study_of
from softprompt.study.spending import (
    curve_of,
    embedding_costs,
    method_cost,
    predictor_costs,
    shared_steps,
    training_tokens,
)


def open_study(folder: str | Path, name: str | None = None) -> tuple[Study, Ledger, Mapping[str, Any]]:
    """A study that was run in a ledger, with its facts.

    Args:
        folder: of the ledger.
        name: of the study; may be left out where the ledger holds one.

    Raises:
        UsageError: there is none, or several and no name was given.
    """
    ledger = Ledger(folder)
    names = ledger.studies()
    if not names:
        raise UsageError(f"{folder} holds no study: run one there first (`softprompt study run STUDY --out {folder}`).")
    if name is None and len(names) > 1:
        raise UsageError(f"{folder} holds the studies {', '.join(names)}: say which one.")
    chosen = name or names[0]
    plain, facts = ledger.noted(chosen, "study"), ledger.noted(chosen, "facts")
    if plain is None or facts is None:
        raise UsageError(f"{folder} holds no study '{chosen}'; it holds {', '.join(names)}.")
    return study_of(plain, f"study '{chosen}'"), ledger, facts


def collect(study: Study, ledger: Ledger, facts: Facts) -> Results:
    """What is finished of a study, as records. Unfinished cells are absent."""
    grid = build_grid(study, facts)
    held = {kind: ledger.keys(kind) for kind in {kind for kind, _ in grid.cells}}
    source_steps = sum(cell.steps for cell in grid.of_kind("source"))
    runs, strategies = [], []
    planned: dict[tuple[str, str, int], None] = {}
    for cell in grid.of_kind("evaluation"):
        of_kind, of_key = cell.spec["of"]
        if of_kind not in ("baseline", "transfer"):
            planned[_place(grid.cells[of_kind, of_key])] = None
        if cell.key not in held["evaluation"] or of_key not in held[of_kind]:
            continue
        parent = grid.cells[of_kind, of_key]
        evaluation = ledger.read("evaluation", cell.key).result
        if _score(study, evaluation) is None:
            continue
        if of_kind in ("baseline", "transfer"):
            runs.append(_run(study, parent, evaluation, ledger))
        else:
            shared = shared_steps(parent, grid, source_steps)
            strategies.append(_strategy(study, parent, evaluation, ledger, shared))
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
        predictor_costs=predictor_costs(study, facts, grid, ledger, held),
        source_steps=source_steps,
        prompt_parameters=study.target.prompt_length * width,
    )


def _run(study: Study, cell: StudyCell, evaluation: Mapping[str, Any], ledger: Ledger) -> RunScore:
    record = ledger.read(*cell.id)
    score = _score(study, evaluation)
    assert score is not None
    train, validation = training_tokens(cell.kind, record)
    moved = cell.kind == "transfer"
    return RunScore(
        target=str(cell.spec["target"]),
        seed=int(cell.spec["seed"]),
        score=score,
        source=(str(cell.spec["source"]), int(cell.spec["source_seed"])) if moved else None,
        halves=_pair(evaluation["halves"]),
        seconds=float(record.result["seconds"]),
        steps=int(record.result["steps"]),
        diverged=record.result["status"] == "non_finite",
        curve=curve_of(record.result),
        train_tokens=train,
        validation_tokens=validation,
    )


def _strategy(
    study: Study, cell: StudyCell, evaluation: Mapping[str, Any], ledger: Ledger, shared: int
) -> StrategyScore:
    score = _score(study, evaluation)
    assert score is not None
    told = ledger.read(*cell.id).result
    tuned = told.get("tuned_parameters")
    strategy, similarity, k = _place(cell)
    return StrategyScore(
        strategy=strategy,
        similarity=similarity,
        k=k,
        target=str(cell.spec["target"]),
        seed=int(cell.spec["seed"]),
        score=score,
        halves=_pair(evaluation["halves"]),
        cost=method_cost(cell, ledger),
        tuned_parameters=None if tuned is None else int(tuned),
        source_steps=shared,
        survivor=str(told.get("survivor", "")),
        race_field=tuple(int(n) for n in told.get("fields", ())),
    )


def _place(cell: StudyCell) -> tuple[str, str, int]:
    """(strategy, similarity, k) of a method's cell; ``sharpt, no-latent-space`` is a strategy of its own."""
    names = {
        "weighted_average": "weighted_average",
        "mixture_transfer": "multitask_mixture",
        "race": "race",
        **ARM_STRATEGIES,
    }
    ablation = str(cell.spec.get("ablation", ""))
    name = f"{names[cell.kind]}, {ablation}" if ablation else names[cell.kind]
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
            table[place] = np.asarray(ledger.tensors("embedding", cell.key)["prompt"].numpy(), dtype=np.float64)
    if study.embedding.best:
        best: dict[PromptId, Floats] = {}
        for cell in [*grid.of_kind("baseline"), *grid.of_kind("source")]:
            if cell.key in held[cell.kind] and int(cell.spec["seed"]) in study.seeds:
                tensors = ledger.tensors(cell.kind, cell.key)
                if "best" in tensors:
                    place = str(cell.spec.get("source", cell.spec.get("target"))), int(cell.spec["seed"])
                    best[place] = np.asarray(tensors["best"].numpy(), dtype=np.float64)
        if best:
            others["best checkpoint"] = best
    return main, others


def _predictors(
    study: Study, facts: Facts, grid: Grid, ledger: Ledger, held: Mapping[str, set[str]]
) -> dict[str, dict[PromptId, dict[str, float]]]:
    """Further rankings: the sources' sizes, which cost nothing, and what the study measured."""
    found: dict[str, dict[PromptId, dict[str, float]]] = {}
    rows = {source: sum(facts.data[task].train_rows for task in study.tasks_of(source)) for source in study.sources}
    if any(rows.values()):
        found["data-size"] = {
            (source, seed): dict.fromkeys(study.targets, float(rows[source]))
            for source in study.sources
            for seed in study.seeds
        }
    for cell in grid.of_kind("prediction"):
        if cell.key not in held["prediction"]:
            continue
        values = ledger.read("prediction", cell.key).result["values"]
        for name, by_prompt in values.items():
            table = found.setdefault(name, {})
            for source, seed in cell.spec["names"]:
                value = by_prompt[f"{source}.{seed}"]
                if value is not None:
                    table.setdefault((source, int(seed)), {})[str(cell.spec["target"])] = float(value)
    return found


def facts_of(study: Study, noted: Mapping[str, Any]) -> Facts:
    """The facts a study was run with, from its ledger, so that a report needs neither data nor backbone."""
    data = {
        name: DataFacts(
            train=row["train"],
            validation=row["validation"],
            train_rows=row["train_rows"],
            validation_rows=row["validation_rows"],
            metrics=tuple(row["metrics"]),
            labels=tuple(row["labels"]),
        )
        for name, row in noted["data"].items()
    }
    return Facts(
        backbone=noted["backbone"],
        fingerprint=noted["fingerprint"],
        dtype=noted["dtype"],
        parameters=int(noted.get("parameters", 0)),
        data=data,
        contamination=tuple((t, s, int(n)) for t, s, n in noted["contamination"]),
    )
