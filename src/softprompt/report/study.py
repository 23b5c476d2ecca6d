"""The report of a transfer study: a page with the verdict first, every table as CSV and LaTeX, every figure as PNG and SVG."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from softprompt import artifacts, waits
from softprompt.analysis.answers import answers_of
from softprompt.analysis.benchmarks import benchmark_table
from softprompt.analysis.comparison import (
    ablation_table,
    against_scratch_table,
    against_sources_table,
    by_target_table,
    cost_table,
    crossed_table,
    sharpt_table,
)
from softprompt.analysis.gains import Gains, best_table, gain_table, positive_transfers, run_table, score_table
from softprompt.analysis.harm import ByRows, by_rows, harm_table, target_table
from softprompt.analysis.lines import KeptLines
from softprompt.analysis.methods import Methods, default_ks
from softprompt.analysis.predictors import predictor_table
from softprompt.analysis.read import collect, skill_relations
from softprompt.analysis.records import Floats, Results
from softprompt.analysis.searches import luck_table, paper_table, race_table, search_table
from softprompt.analysis.similarity import (
    SIMILARITIES,
    checkpoint_table,
    correlation_table,
    related_maps,
    run_similarities,
    task_similarities,
)
from softprompt.analysis.sizes import Sized, by_size, size_series, size_table, sized_studies
from softprompt.analysis.tables import Table
from softprompt.analysis.verdict import strength, verdicts
from softprompt.errors import UsageError
from softprompt.report import figures as draw
from softprompt.report.heatmaps import clustered_heatmap, gain_heatmap, relation_pair
from softprompt.report.page import Block, FigureBlock, Section, TableBlock, Text, Values, Verdicts, render, write_table
from softprompt.study.settings import Study

Skills = tuple[Sequence[str], Floats]
"""Tasks, and SharPT's relation of them by shared skills, float [N, N]."""


@dataclass(frozen=True, kw_only=True)
class StudyReport:
    """What was written.

    Attributes:
        page: the HTML file.
        tables: CSV and LaTeX files.
        figures: PNG and SVG files.
        left_out: figures that cannot be drawn yet, and why.
    """

    page: Path
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that a report tells.

    Attributes:
        results: the study's records, finished or not.
        study: its settings, where it has any.
        methods: scores and costs by method.
        rows: comparisons with scratch by rows, where the targets' rows were at hand.
        skills: SharPT's relations of the tasks.
        sizes: this study and the same on other backbones, smallest first.
        contamination: (target, source, rows) of validation inputs that stand among training inputs.
        provenance: where the numbers are from.
    """

    results: Results
    study: Study | None = None
    methods: Methods
    rows: ByRows | None = None
    skills: Skills | None = None
    sizes: Sequence[Sized] = ()
    contamination: Sequence[tuple[str, str, int]] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, results: Results, study: Study | None = None, **others: Any) -> Findings:
        ks = study.strategies.best_of_top_k if study is not None else ()
        methods = Methods.of(results, sorted({*ks, *default_ks(len(results.prompts))}))
        return cls(results=results, study=study, methods=methods, **others)


def report_study(
    folder: str | Path, out: str | Path, name: str | None = None, *, figures: bool = True,
    beside: Sequence[str | Path] = (),
) -> StudyReport:  # fmt: skip
    """Write the report of a study that was run in a ledger, finished or not.

    Where the targets' rows are at hand and are those of the study, answers are compared with them row by row.

    Args:
        folder: of the ledger.
        out: where ``report.html``, ``tables/`` and ``figures/`` go.
        name: of the study; may be left out where the ledger holds one.
        figures: whether figures are drawn (needs matplotlib).
        beside: ledgers of the same study on other backbones, for score against size (SharPT Figure 2).

    Raises:
        UsageError: the ledger holds no such study, or one beside it does not or has other targets.
    """
    from softprompt.study.reading import facts_of, open_study

    study, ledger, noted = open_study(folder, name)
    facts = facts_of(study, noted)
    results = collect(study, ledger, facts)
    own = Sized(backbone=facts.backbone, parameters=facts.parameters, results=results)
    others = sized_studies(beside, study.name) if beside else []
    found = Findings.of(
        results, study, skills=skill_relations(study, ledger, facts), contamination=facts.contamination,
        sizes=by_size([own, *others]) if facts.parameters else others,
        provenance={**provenance_of(study, noted), "ledger": str(folder)},
    )  # fmt: skip
    rows = by_rows(results, found.methods, *answers_of(study, ledger, facts))
    return write_report(replace(found, rows=rows), out, figures=figures)


def report_lines(lines: str | Path, study: Study, out: str | Path, *, figures: bool = True) -> StudyReport:
    """Write the report of a study from the JSON lines that `benchmarks/ledger_lines.py` keeps of its ledger.

    Lines without answers and task embeddings give a report without comparisons by rows and without similarities.

    Args:
        lines: one a cell.
        study: that they are of.
        out: as in `report_study`.
        figures: likewise.

    Raises:
        DataError: a line that is no cell.
    """
    kept = KeptLines(lines, study)
    results = collect(study, kept, kept.facts)
    found = Findings.of(results, study, provenance={"study": study.name, "lines": str(lines)})
    rows = by_rows(results, found.methods, *answers_of(study, kept, kept.facts))
    return write_report(replace(found, rows=rows), out, figures=figures)


def write_report(found: Findings, out: str | Path, *, title: str = "", figures: bool = True) -> StudyReport:
    """Write page, tables and figures; see `report_study`."""
    folder = Path(out)
    drawings = Drawings(folder / "figures" if figures else None)
    sections = _sections(found, drawings)
    artifacts.write_bytes(folder / "report.html", _page(found, sections, title).encode())
    tables = [path for table in tables_of(sections) for path in write_table(table, folder / "tables")]
    return StudyReport(
        page=folder / "report.html", tables=tuple(tables), figures=tuple(drawings.files), left_out=tuple(drawings.left_out)
    )  # fmt: skip


class Drawings:
    """Draws each figure once: into files, and for the page.

    Args:
        folder: for the files; None to draw nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.files: list[Path] = []
        self.left_out: list[str] = []

    def block(self, name: str, title: str, figure: Callable[[], Any], note: str = "") -> list[FigureBlock]:
        """The figure of a page; one that cannot be drawn yet says why."""
        if self.folder is None:
            return []
        try:
            made = figure()
        except UsageError as error:
            self.left_out.append(f"{name}: {error}")
            return [FigureBlock(name=name, title=title, svg="", note=f"Not drawn: {error}")]
        self.files += [draw.save(made, self.folder / f"{name}.{suffix}") for suffix in ("png", "svg")]
        return [FigureBlock(name=name, title=title, svg=draw.inline_svg(made, name, title), note=note)]


def study_page(found: Findings, drawings: Drawings | None = None, *, title: str = "") -> str:
    """The page of a study: HTML that needs nothing else.

    Args:
        found: what it tells.
        drawings: draws the figures; a page without any where None.
        title: where there is no study file.
    """
    return _page(found, _sections(found, drawings or Drawings(None)), title)


def _sections(found: Findings, drawings: Drawings) -> list[Section]:
    parts: list[Callable[[], Section]] = [
        partial(_verdict_section, found),
        partial(_targets_section, found, drawings),
        partial(_methods_section, found, drawings),
        partial(_choosing_section, found, drawings),
        partial(_space_section, found, drawings),
        partial(_harm_section, found),
        partial(_tests_section, found),
    ]
    sections = [part() for part in waits.each("writing sections", parts)]
    if found.study is not None:
        settings = Values(title="The study file, every value resolved", values=found.study.plain())
        sections.append(Section(name="settings", title="Settings", blocks=[settings], folded=True))
    if found.provenance:
        values = Values(title="Where the numbers are from", values=found.provenance)
        sections.append(Section(name="provenance", title="Provenance", blocks=[values], folded=True))
    return sections


def _page(found: Findings, sections: Sequence[Section], title: str) -> str:
    results, study = found.results, found.study
    heading = title or (study.title or f"Transfer study {study.name}" if study is not None else "Transfer study")
    counts = ((results.sources, "source task"), (results.targets, "target task"), (results.seeds, "seed"))
    words = ", ".join(f"{len(items)} {word}{'' if len(items) == 1 else 's'}" for items, word in counts)
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    backbone = f" on {study.backbone}" if study is not None else ""
    return render(heading, words + backbone, sections, f"Made by softprompt, {when} UTC; this file needs no network.")


def tables_of(sections: Sequence[Section]) -> list[Table]:
    """Every table of a page, those that are folded away included."""
    shown = (blocks for section in sections for blocks in (section.blocks, *section.more.values()))
    return [block.table for blocks in shown for block in blocks if isinstance(block, TableBlock)]


def _verdict_section(found: Findings) -> Section:
    results = found.results
    gains = Gains.of(results)
    done, planned = int(gains.done_ST.sum()), gains.scores_STR.size
    blocks: list[Block] = [Verdicts(found=verdicts(found.methods, results, found.rows), strength=strength(results))]
    if done < planned:
        text = (
            f"{planned - done} of {planned} transfer runs are not finished. They are shown as pending, and an average over them is "
            "given only where all of its parts are there."
        )
        blocks.append(Text(text=text, style="warn"))
    diverged = [run for run in results.runs if run.diverged]
    if diverged:
        names = [f"{run.source[0] if run.source else 'scratch'} to {run.target}, seed {run.seed}" for run in diverged]
        text = f"{len(diverged)} runs met a loss that is not finite ({'; '.join(names)}); their last good checkpoints count."
        blocks.append(Text(text=text, style="warn"))
    for target, source, rows in found.contamination:
        text = (
            f"Contamination: {rows} validation {'input' if rows == 1 else 'inputs'} of {target} {'stands' if rows == 1 else 'stand'} "
            f"among the training inputs of {source}; its gain on {target} may be memory."
        )
        blocks.append(Text(text=text, style="warn"))
    return Section(name="verdict", title="Verdict", blocks=blocks)


def _targets_section(found: Findings, drawings: Drawings) -> Section:
    results = found.results
    note = (
        "Dots are runs from a source prompt, bars their means; diamonds are methods, the filled one is what retrieval chooses; the grey "
        "band holds the runs from scratch."
    )
    blocks: list[Block] = [
        *drawings.block("targets", "Gain by target", lambda: draw.target_panels(results, found.methods), note),
        *drawings.block(
            "gain_heatmap", "Relative error reduction, each target's best source framed", lambda: gain_heatmap(results)
        ),
        TableBlock(table=score_table(results), sortable=True, lead=1),
    ]
    more: dict[str, Sequence[Block]] = {
        "Relative error reduction in numbers": [TableBlock(table=gain_table(results))],
        "Best source of each target": [TableBlock(table=best_table(results))],
        "Transfers with more than 10 % error reduction": [TableBlock(table=positive_transfers(results))],
    }
    generic = benchmark_table(results)
    if generic is not None:
        blocks.append(TableBlock(table=generic, lead=1))
    more["Every run"] = [TableBlock(table=run_table(results), sortable=True)]
    return Section(name="who-helps-whom", title="Who helps whom", blocks=blocks, more=more)


def _methods_section(found: Findings, drawings: Drawings) -> Section:
    results, methods = found.results, found.methods
    blocks: list[Block] = [
        TableBlock(table=cost_table(methods), lead=1),
        *drawings.block("score_against_cost", "Score against cost", lambda: draw.score_against_cost(methods)),
        TableBlock(table=by_target_table(methods, results)),
    ]
    for table in (ablation_table(methods, results), crossed_table(methods, results, found.study)):
        if table is not None:
            blocks.append(TableBlock(table=table))
    if found.sizes:
        blocks.append(TableBlock(table=size_table(found.sizes)))
        series = size_series(found.sizes)
        if len(found.sizes) > 1:
            blocks += drawings.block("model_sizes", "Score against size", lambda: draw.score_against_size(series))
        else:
            text = "One size was measured. The same study on other backbones makes SharPT's Figure 2: `softprompt study report --beside`."
            blocks.append(Text(text=text, style="soft"))
    return Section(name="methods", title="Methods and their cost", blocks=blocks)


def _choosing_section(found: Findings, drawings: Drawings) -> Section:
    results, methods = found.results, found.methods
    judged, race = predictor_table(results), race_table(methods, results)
    blocks: list[Block] = [
        *([TableBlock(table=judged)] if judged is not None else []),
        *drawings.block("score_against_tries", "Score against tries", lambda: draw.score_against_tries(methods)),
        TableBlock(table=search_table(methods, results)),
        TableBlock(table=luck_table(methods, results)),
        *([TableBlock(table=race)] if race is not None else []),
    ]
    ks = tuple(sorted({m.k for m in methods.searches}))
    more = {
        "As SPoT's Table 3 counts: chosen and reported on the same rows": [TableBlock(table=paper_table(results, ks))]
    }
    return Section(name="choosing", title="Choosing a source prompt", blocks=blocks, more=more)


def _space_section(found: Findings, drawings: Drawings) -> Section:
    results = found.results
    if not results.embeddings:
        text = Text(text="No task embedding is at hand: similarities of tasks are not shown.", style="soft")
        return Section(name="task-space", title="Task space", blocks=[text])
    blocks: list[Block] = [Text(text="Tasks that stand together have prompts that point the same way early in tuning.")]
    more: dict[str, list[Block]] = {}
    for kind, words in SIMILARITIES.items():
        shown, runs = _similarity_blocks(results, kind, drawings)
        if kind == "average":
            blocks += shown
            more["Every run on its own"] = runs
        else:
            more[words.capitalize()] = [*shown, *runs]
    pair = related_maps(results.embeddings, found.skills)
    if pair is not None:
        title = "The same tasks by prompts and by SharPT's shared skills"
        blocks += drawings.block("task_relations", title, lambda: relation_pair(*pair))
    if results.other_embeddings:
        more["Embeddings from other checkpoints"] = [TableBlock(table=checkpoint_table(results))]
    return Section(name="task-space", title="Task space", blocks=blocks, more=more)


def _similarity_blocks(results: Results, kind: str, drawings: Drawings) -> tuple[list[Block], list[Block]]:
    """What one similarity shows: of tasks, with its correlation with gain, and of every run."""
    words = SIMILARITIES[kind]
    tasks, runs = task_similarities(results.embeddings, kind), run_similarities(results.embeddings, kind)
    return [
        *drawings.block(f"similarity_tasks_{kind}", words.capitalize(), lambda: clustered_heatmap(tasks, words)),
        *drawings.block(f"correlation_{kind}", f"Gain against {words}", lambda: draw.scatter_panels(results, kind)),
        TableBlock(table=correlation_table(results, kind)),
    ], [*drawings.block(f"similarity_runs_{kind}", "Every run", lambda: clustered_heatmap(runs, words))]


def _harm_section(found: Findings) -> Section:
    rows = found.rows
    if rows is None or rows.blind(len(found.results.targets)):
        reasons: dict[str, list[str]] = {}
        for target, reason in (rows.left_out if rows is not None else {}).items():
            reasons.setdefault(reason.rstrip("."), []).append(target)
        why = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
        text = "Whether transfer harms is compared row by row, and the targets' rows were not found"
        blocks: list[Block] = [Text(text=f"{text}{f' ({why})' if why else ''}.", style="soft")]
    elif not rows.harms:
        blocks = [Text(text="No transferred prompt is finished yet to compare with scratch: pending.", style="soft")]
    else:
        blocks = [TableBlock(table=harm_table(rows)), TableBlock(table=target_table(rows))]
    return Section(name="harm", title="Does transfer harm?", blocks=blocks)


def _tests_section(found: Findings) -> Section:
    made = (against_scratch_table(found.methods), sharpt_table(found.methods), against_sources_table(found.results))
    return Section(name="tests", title="Tests", blocks=[TableBlock(table=table) for table in made if table is not None])


def provenance_of(study: Study, noted: Mapping[str, Any]) -> dict[str, Any]:
    """Backbone and data fingerprints of a study, from its ledger."""
    from softprompt import __version__

    return {
        "softprompt": __version__,
        "study": study.name,
        "backbone": noted["backbone"],
        "backbone fingerprint": noted["fingerprint"],
        "dtype": noted["dtype"],
        "data (train / validation)": {
            task: f"{row['train'][:16]} ({row['train_rows']:,} rows) / {row['validation'][:16]} ({row['validation_rows']:,} rows)"
            for task, row in noted["data"].items()
        },
    }
