"""SharPT's Tables 1 to 3 in the form of a study: methods by target task, across categories of tasks, and ablated.

What was not measured says so or is left out; the best number of a column is bold, the second best underlined, as there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from softprompt.study.grid import MODEL_KINDS
from softprompt.study.methods import choice_note, on_the_page
from softprompt.study.outcomes import RACE, Outcome, Outcomes, bargain_ks
from softprompt.study.records import Results
from softprompt.study.settings import SHARPT_ABLATIONS, Study
from softprompt.study.tables import Cell, Table
from softprompt.tasks.mixture import MIXTURES

Row = tuple[str, tuple[Cell | str, ...]]
NOT_MEASURED = "–"
ABLATED = tuple(f"sharpt, {name}" for name in SHARPT_ABLATIONS)
BEST_NOTE = "Best of a column bold, second best underlined."
OF_ALL_SOURCES = ("sharpt", "multitask_model_tuning", "weighted_average", "multitask_mixture", RACE)
"""Methods that draw on all sources of a study at once: without some of them they are other runs."""


def dear(outcome: Outcome) -> bool:
    """Whether a method stands in the upper panel: it tunes several prompts for one target, or all weights."""
    return outcome.tunings > 1 or outcome.strategy in (*MODEL_KINDS, "multitask_mixture")


def by_target_table(found: Outcomes, results: Results) -> Table:
    """Scores by method and target: the dear methods in the upper panel, the others in the lower (SharPT Table 1)."""
    shown = [o for o in on_the_page(found) if o.strategy not in ABLATED]
    return _panels(
        "methods",
        "Methods by target task (percent)",
        results.targets,
        [(o, [o.cell(t) for t in range(len(results.targets))] + [o.cell()]) for o in shown],
        notes=(
            "As SharPT's Table 1: the upper panel tunes several prompts for one target, or all weights; the lower panel one "
            f"prompt or generator. {BEST_NOTE}",
            f"{choice_note(found)} Spread over the target's runs; what no run had a part in choosing has one number a target.",
        ),
    )


def ablation_table(found: Outcomes, results: Results) -> Table | None:
    """SharPT beside itself without source training, and without the latent space (SharPT Table 3); None where not asked for."""
    shown = [o for o in found.methods if o.strategy in ("sharpt", *ABLATED)]
    if not any(o.strategy in ABLATED for o in shown):
        return None
    targets = range(len(results.targets))
    return _panels(
        "ablations",
        "SharPT and what its parts are worth (percent)",
        results.targets,
        [(o, [o.cell(t) for t in targets] + [o.cell()]) for o in shown],
        notes=(
            "As SharPT's Table 3, whose paper defines neither ablation. no-source-training: skills and generator are as "
            "they start, and the generator is tuned on the target. no-latent-space: the instance encoding goes into the "
            "generator in place of a skill; it is trained on the sources, then on the target. generator-only, our control: one "
            "fixed random vector for all rows and a fresh generator, as many numbers tuned as by SharPT, nothing from the sources. "
            f"{BEST_NOTE}",
            choice_note(found),
        ),
    )


def crossed_table(found: Outcomes, results: Results, study: Study | None = None) -> Table | None:
    """Every target with source prompts of other categories alone (SharPT Table 2).

    Args:
        found: the study's outcomes.
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
    kinds: dict[str, Outcome] = {}
    fewest = min(len(allowed) for allowed in others.values()) * len(results.seeds)
    for allowed in dict.fromkeys(others.values()):
        targets = tuple(target for target in others if others[target] == allowed)
        part = restricted(results, allowed, targets)
        for outcome in on_the_page(Outcomes.of(part, bargain_ks(fewest))):
            kinds.setdefault(outcome.name, outcome)
            row = cells.setdefault(outcome.name, {})
            row |= {target: outcome.cell(t) for t, target in enumerate(targets)}
    whole = [o for o in on_the_page(found) if o.strategy in OF_ALL_SOURCES]
    shown = {o.name: o for o in (*kinds.values(), *whole) if o.strategy not in ABLATED}
    columns = tuple(others)
    rows = [(o, [cells.get(name, {}).get(target, NOT_MEASURED) for target in columns]) for name, o in shown.items()]
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
        predictors={},  # what predicts by other transfers was fitted on all sources
        predictor_costs={},
    )


def categories_of(name: str, study: Study | None = None) -> frozenset[str]:
    """Categories of a task, or of all tasks of a mixture; empty where one is not known (generated and users' tasks)."""
    from softprompt.tasks.catalog import ALIASES, DECLARATIONS

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
    name: str, title: str, targets: Sequence[str], rows: Sequence[tuple[Outcome, Sequence[Cell | str]]], *,
    notes: tuple[str, ...], average: bool = True,
) -> Table:  # fmt: skip
    ordered = sorted(rows, key=lambda row: not dear(row[0]))  # stable: the order within a panel is the given one
    above = sum(dear(outcome) for outcome, _ in ordered)
    marked = mark_best([(outcome.name, tuple(cells)) for outcome, cells in ordered])
    return Table(
        name=name,
        title=title,
        columns=("method", *targets, *(("average",) if average else ())),
        rows=tuple((label, *cells) for label, cells in marked),
        notes=notes,
        rules=(above,) if 0 < above < len(marked) else (),
    )


def mark_best(rows: Sequence[Row]) -> list[Row]:
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
