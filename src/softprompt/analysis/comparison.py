"""Methods side by side: score beside cost, each against scratch, and SharPT's Tables 1 to 3 in the form of a study.

What was not measured says so or is left out; the best number of a column is bold, the second best underlined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from softprompt.analysis.methods import RACE, Methods, MethodScores, default_ks
from softprompt.analysis.records import Floats, Results
from softprompt.analysis.statistics import Interval, family, family_table, t_interval
from softprompt.analysis.tables import NOT_MEASURED, PENDING, Cell, Row, Table
from softprompt.study.settings import SHARPT_ABLATIONS, Study
from softprompt.tasks.mixture import MIXTURES

ABLATED = tuple(f"sharpt, {name}" for name in SHARPT_ABLATIONS)
BEST_NOTE = "Best of a column bold, second best underlined."
OF_ALL_SOURCES = ("sharpt", "multitask_model_tuning", "weighted_average", "multitask_mixture", RACE)
"""Methods that draw on all sources of a study at once: without some of them they are other runs."""
DEAR = ("model_tuning", "multitask_model_tuning", "multitask_mixture")


def dear(method: MethodScores) -> bool:
    """Whether a method stands in the upper panel: it tunes several prompts for one target, or all weights."""
    return method.tunings > 1 or method.strategy in DEAR


def cost_table(found: Methods) -> Table:
    """Score and cost of every method, averaged over targets."""
    body: list[Row] = []
    for m in found.shown:
        gain = NOT_MEASURED if m is found.baseline else t_interval(found.gain_T(m)).text(sign=True)
        share = m.cost_share(found.oracle)
        body.append(
            (
                m.name,
                m.cell(),
                gain,
                _count(m.steps_TR),
                PENDING if np.isnan(share) else f"{100 * share:.1f}%",
                _count(m.seconds_TR),
                NOT_MEASURED if np.isnan(m.parameters) else f"{m.parameters:,.0f}",
                PENDING if np.isnan(m.source_steps) else f"{m.source_steps:,.0f}",
            )
        )
    return Table(
        name="methods_cost",
        title="Methods: score (percent) beside cost, averaged over target tasks",
        columns=(
            "method", "score", "points over scratch [95%]", "steps", "share of the oracle's cost", "seconds",
            "tuned parameters", "source steps",
        ),
        rows=tuple(body),
        notes=(
            f"{found.choices.note} Spread: over seeds of the average. Interval: Student's over targets, against the mean of all "
            f"{found.choices.fewest_scratch} runs from scratch.",
            "Steps: of tuning on the target, prompts or weights, for one use, with task embeddings and the tuning of a target's own "
            "mixture. Cost: forward-token equivalents of training (two a position for prompts, three for model tuning) and of the "
            "validation that choices are made on, and of what SharPT's frozen encoder reads, each row once (cells made before it was "
            "counted leave it out); the final measurement is not counted. Source steps are taken once and serve every target; they "
            "are not in the cost.",
        ),
    )  # fmt: skip


def against_scratch_table(found: Methods) -> Table:
    """Every method against prompt tuning from scratch, as one family of tests."""
    rows = family([(m.name, found.gain_T(m)) for m in found.shown if m is not found.baseline])
    return family_table(
        rows, "methods_tested", "Each method against prompt tuning from scratch",
        (f"Against the mean of all {found.choices.fewest_scratch} runs from scratch. p: sign flips over targets.",),
    )  # fmt: skip


def against_sources_table(results: Results) -> Table:
    """Every source task against scratch, as one family of tests."""
    scores_STR, base_T = results.transfers_STR(), results.base_T
    rows = family([(name, scores_STR[s].mean(axis=1) - base_T) for s, name in enumerate(results.sources)])
    return family_table(
        rows, "sources_tested", "Each source task against prompt tuning from scratch",
        ("Seeds of a source are averaged first. p: sign flips over targets.",),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CostPoint:
    """A method's place in the figure of score against cost.

    Attributes:
        name: of the method.
        share: of the oracle's forward tokens, above 0.
        gain: points over scratch.
    """

    name: str
    share: float
    gain: Interval


def cost_points(found: Methods) -> list[CostPoint]:
    """Finished methods of known cost."""
    points = []
    for m in found.shown:
        share, gain = m.cost_share(found.oracle), t_interval(found.gain_T(m))
        if not np.isnan(gain.mean) and share > 0:
            points.append(CostPoint(name=m.name, share=share, gain=gain))
    return points


def sharpt_table(found: Methods) -> Table | None:
    """SharPT against every other method, as one family of tests; None where it was not run."""
    own = found.named("sharpt")
    if own is None:
        return None
    rows = family([(m.name, own.score_T - m.score_T) for m in found.shown if m is not own])
    return family_table(
        rows, "sharpt_tested", "SharPT against every other method", ("Points of SharPT over the method.",)
    )


def _count(values_TR: Floats) -> str:
    if not values_TR.size or np.isnan(values_TR).any():
        return PENDING
    mean = float(values_TR.mean())
    return f"{mean:,.0f}" if mean >= 10 else f"{mean:.1f}"


def by_target_table(found: Methods, results: Results) -> Table:
    """Scores by method and target: the dear methods in the upper panel, the others in the lower (SharPT Table 1)."""
    targets = range(len(results.targets))
    shown = [m for m in found.shown if m.strategy not in ABLATED]
    return _panels(
        "methods",
        "Methods by target task (percent)",
        results.targets,
        [(m, [m.cell(t) for t in targets] + [m.cell()]) for m in shown],
        notes=(
            "As SharPT's Table 1: the upper panel tunes several prompts for one target, or all weights; the lower panel one "
            f"prompt or generator. {BEST_NOTE} {found.choices.note} Spread over the target's runs; what no run had a part in choosing "
            "has one number a target.",
        ),
    )


def ablation_table(found: Methods, results: Results) -> Table | None:
    """SharPT beside itself without source training, and without the latent space (SharPT Table 3); None where not asked for."""
    shown = [m for m in found.others if m.strategy in ("sharpt", *ABLATED)]
    if not any(m.strategy in ABLATED for m in shown):
        return None
    targets = range(len(results.targets))
    return _panels(
        "ablations",
        "SharPT and what its parts are worth (percent)",
        results.targets,
        [(m, [m.cell(t) for t in targets] + [m.cell()]) for m in shown],
        notes=(
            "As SharPT's Table 3, whose paper defines neither ablation. no-source-training: skills and generator are as "
            "they start, and the generator is tuned on the target. no-latent-space: the instance encoding goes into the "
            "generator in place of a skill; it is trained on the sources, then on the target. generator-only, our control: one "
            "fixed random vector for all rows and a fresh generator, as many numbers tuned as by SharPT, nothing from the sources. "
            f"{BEST_NOTE}",
        ),
    )


def crossed_table(found: Methods, results: Results, study: Study | None = None) -> Table | None:
    """Every target with source prompts of other categories alone (SharPT Table 2).

    Args:
        found: the study's methods.
        results: its records.
        study: for the tasks of its own mixtures.

    Returns:
        None where no target's category is known, or none has a source of another one.
    """
    sources = {name: categories_of(name, study) for name in results.sources}
    others: dict[str, tuple[str, ...]] = {}
    for target in results.targets:
        own = categories_of(target)
        allowed = tuple(name for name, found in sources.items() if own and found and not own & found)
        if allowed:
            others[target] = allowed
    if not others:
        return None
    cells: dict[str, dict[str, Cell]] = {}
    kinds: dict[str, MethodScores] = {}
    fewest = min(len(allowed) for allowed in others.values()) * len(results.seeds)
    for allowed in dict.fromkeys(others.values()):
        targets = tuple(target for target in others if others[target] == allowed)
        part = restricted(results, allowed, targets)
        for method in Methods.of(part, default_ks(fewest)).shown:
            kinds.setdefault(method.name, method)
            row = cells.setdefault(method.name, {})
            row |= {target: method.cell(t) for t, target in enumerate(targets)}
    whole = [m for m in found.shown if m.strategy in OF_ALL_SOURCES]
    shown = {m.name: m for m in (*kinds.values(), *whole) if m.strategy not in ABLATED}
    columns = tuple(others)
    rows = [(m, [cells.get(name, {}).get(target, NOT_MEASURED) for target in columns]) for name, m in shown.items()]
    return _panels(
        "across_categories", "Transfer across categories of tasks (percent)", columns, rows, average=False,
        notes=_crossed_notes(results, sources, others),
    )  # fmt: skip


def restricted(results: Results, sources: Sequence[str], targets: Sequence[str]) -> Results:
    """A study's records as if it had only these sources and targets; methods that drew on all sources are left out."""
    whole = set(sources) == set(results.sources)
    return replace(
        results,
        sources=tuple(sources),
        targets=tuple(targets),
        runs=tuple(
            run for run in results.runs if run.target in targets and (run.source is None or run.source[0] in sources)
        ),
        strategies=tuple(
            run for run in results.strategies if run.target in targets and (whole or run.strategy not in OF_ALL_SOURCES)
        ),
        planned=tuple(place for place in results.planned if whole or place[0] not in OF_ALL_SOURCES),
        predictors={},
        predictor_costs={},
    )


def categories_of(name: str, study: Study | None = None) -> frozenset[str]:
    """Categories of a task, or of all tasks of a mixture; empty where one is not known (generated and users' tasks)."""
    from softprompt.tasks.forms import ALIASES, DECLARATIONS

    tasks = study.tasks_of(name) if study is not None else MIXTURES[name].tasks if name in MIXTURES else (name,)
    found = [DECLARATIONS.get(ALIASES.get(task, task)) for task in tasks]
    known = frozenset(declared.category for declared in found if declared is not None)
    return frozenset() if None in found else known


def _crossed_notes(
    results: Results, sources: Mapping[str, frozenset[str]], others: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    known = {**sources, **{target: categories_of(target) for target in results.targets}}
    families = sorted({category for found in known.values() for category in found})
    listed = "; ".join(
        f"{family.replace('_', ' ')}: {', '.join(name for name, found in known.items() if family in found)}"
        for family in families
    )
    notes = [
        f"As SharPT's Table 2: a target is given source prompts of other categories only. {BEST_NOTE} {listed}.",
    ]
    if any(set(allowed) != set(results.sources) for allowed in others.values()):
        notes.append(
            f"{NOT_MEASURED}: not measured; what is learned from all sources at once has seen the target's own category in this "
            "study. A study whose sources and targets share no category, as the ready one named cross-category, fills these cells."
        )
    left = [name for name in results.targets if name not in others]
    if left:
        notes.append(f"Left out, for their category is not known or every source shares it: {', '.join(left)}.")
    return tuple(notes)


def _panels(
    name: str, title: str, targets: Sequence[str], rows: Sequence[tuple[MethodScores, Sequence[Cell | str]]], *,
    notes: tuple[str, ...], average: bool = True,
) -> Table:  # fmt: skip
    ordered = sorted(rows, key=lambda row: not dear(row[0]))  # stable: the order within a panel is the given one
    above = sum(dear(method) for method, _ in ordered)
    marked = mark_best([(method.name, tuple(cells)) for method, cells in ordered])
    return Table(
        name=name,
        title=title,
        columns=("method", *targets, *(("average",) if average else ())),
        rows=tuple((label, *cells) for label, cells in marked),
        notes=notes,
        rules=(above,) if 0 < above < len(marked) else (),
    )


def mark_best(rows: Sequence[tuple[str, tuple[Cell | str, ...]]]) -> list[tuple[str, tuple[Cell | str, ...]]]:
    """The same rows, the best and the second best finished number of every column marked; equal as shown is equal."""
    out = [list(cells) for _, cells in rows]
    for column in range(len(out[0]) if out else 0):
        values = {i: _finished(cells[column]) for i, cells in enumerate(out)}
        known = {i: value for i, value in values.items() if value is not None}
        best = sorted(set(known.values()), reverse=True)
        if len(known) < 2:
            continue
        for i, value in known.items():
            cell = out[i][column]
            if isinstance(cell, Cell) and value in best[:2]:
                out[i][column] = replace(cell, mark="best" if value == best[0] else "second")
    return [(name, tuple(cells)) for (name, _), cells in zip(rows, out, strict=True)]


def _finished(cell: Cell | str) -> float | None:
    if not isinstance(cell, Cell) or cell.value is None or not cell.complete:
        return None
    return round(cell.value, 1)
