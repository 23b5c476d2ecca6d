"""Every measured figure of the docs, read again from the committed records.

    python scripts/doc_figures.py            # says which figures are not those of the records
    python scripts/doc_figures.py --write    # and puts the right ones in their place

A page of `PAGES` says where its figures are from: after a paragraph, list or table stands a comment

    <!-- figures: EXPRESSION; EXPRESSION -->

which covers the text since the comment before, or since the last heading. The expressions are evaluated over the records
(`records()` below); the figures in what they give must be those of the text, in order. A figure is a number with a decimal
point, with a sign, or with a percent sign after it; what is stated rather than measured (a setting, a paper's number) is given
as ``"12.0"`` in quotes. Text with a figure that no comment covers is refused.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (
    "README.md", "docs/evidence.md", "docs/evidence-plan.md", "docs/sharpt.md", "docs/soft-prompts.md", "docs/ranking.md",
    "docs/http.md", "docs/engines.md", "docs/neighbours.md",
)  # fmt: skip
FIGURE = re.compile(r"(?<![\w.,])[+−-]?\d[\d,]*\.\d+(?![\w.]*\w)|(?<![\w\d.,])[+−-]\d+(?![\w.])|(?<![\w.,])\d+(?= ?%)")
MARK = re.compile(r"<!-- figures:\s(.*?)\s-->", re.DOTALL)
SKIPPED = re.compile(
    r"```.*?```|`[^`\n]*`|\]\([^)\n]*\)|<!--.*?-->|\b95 ?%|\bT5 1\.1\b|v1\.1\b|Python 3\.11|Apache-2\.0|\bEq\. \d|^#[^\n]*$",
    re.DOTALL | re.M,
)


def figures(text: str) -> list[str]:
    """The figures of a text, in order, with plain minus signs."""
    return [found[0].replace("−", "-") for found in _found(text)]


def _found(text: str) -> list[re.Match[str]]:
    blank = SKIPPED.sub(lambda match: " " * len(match[0]), text)
    return list(FIGURE.finditer(blank))


def _same(told: str, meant: str) -> bool:
    """``0.0`` and ``-0.0`` are one figure, and so are ``+1.0`` and ``1.0`` where a sentence says which way it goes."""
    return told.lstrip("+").replace("-0.0", "0.0") == meant.lstrip("+").replace("-0.0", "0.0")


def covered(page: str) -> list[tuple[int, int, str]]:
    """(start, end, expressions) of every covered part, and parts without a comment, whose expressions are empty."""
    parts, start = [], 0
    for mark in MARK.finditer(page):
        headings = [m.end() for m in re.finditer(r"^#.*$", page[start : mark.start()], re.M)]
        inner = start + headings[-1] if headings else start
        parts += [(start, inner, ""), (inner, mark.start(), mark[1])]
        start = mark.end()
    return [*parts, (start, len(page), "")]


def check(path: Path, names: Mapping[str, Any], *, write: bool = False) -> list[str]:
    """What is wrong on a page, a line each; with ``write`` the figures are put right where their number is."""
    page, wrong = path.read_text(encoding="utf-8"), []
    for start, end, told in reversed(covered(page)):
        here = _found(page[start:end])
        line = page.count("\n", 0, start + (here[0].start() if here else 0)) + 1
        meant = figures("; ".join(str(eval(e, {"__builtins__": {}}, dict(names))) for e in _split(told)))
        given = [match[0].replace("−", "-") for match in here]
        if len(given) != len(meant):
            wrong.append(f"{path.name}, line {line}: the text has {given}, its records give {meant}")
            continue
        for match, value in zip(reversed(here), reversed(meant), strict=True):
            if not _same(match[0].replace("−", "-"), value):
                near = page[start + match.start() - 40 : start + match.end() + 10].replace("\n", " ")
                wrong.append(f"{path.name}, line {line}: '{near}' should have {value}")
                if write:
                    page = page[: start + match.start()] + value + page[start + match.end() :]
    if write:
        path.write_text(page, encoding="utf-8")
    return wrong[::-1]


def _split(told: str) -> list[str]:
    return [part.strip() for part in re.split(r";(?=(?:[^'\"]|'[^']*'|\"[^\"]*\")*$)", told) if part.strip()]


def records() -> dict[str, Any]:
    """What expressions may name."""
    from softprompt.study.settings import load_study

    evidence = Evidence(RESULTS / "evidence", load_study("small"))
    generic = Evidence(RESULTS / "generic", load_study("generic-spot-small"))
    few, long, full = (
        SmolLM2("smollm2", "smollm2-long-scratch"),
        SmolLM2("smollm2-long-sources", "smollm2-long-scratch"),
        SmolLM2("smollm2-full", "smollm2-full-long-scratch"),
    )
    return {
        "evidence": evidence, "generic": generic, "stability": stability, "choices": Choices(), "one": one, "signed": signed,
        "promptability": promptability, "kin": kin, "serving": serving,
        "smollm2": few, "long_sources": long, "full": full, "together": Together(few, long, full),
        "neighbours": neighbours, "neighbour": neighbour, "pilot": pilot, "taught": taught, "untuned": untuned, "race_share": race_share,
        "by_hand": lambda *values: "; ".join(values),
    }  # fmt: skip


def one(value: float, digits: int = 1) -> str:
    """A number as it stands in a text."""
    return str(_half_up(value, digits) + 0)


def signed(value: float, digits: int = 1) -> str:
    """A difference."""
    return f"{_half_up(value, digits):+}"


def _half_up(value: float, digits: int) -> Decimal:
    """Rounded as a reader would: records hold few digits, and 85.05 is 85.1."""
    return Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)


class Evidence:
    """A study whose cells are committed as lines, with the tables that rest on prompts, which the lines do not hold."""

    def __init__(self, folder: Path, study: Any, lines: str = "cells.jsonl", guard: str = "guard.csv") -> None:
        from softprompt.analysis.gains import Gains
        from softprompt.analysis.lines import collect_lines
        from softprompt.analysis.methods import Methods

        self.folder, self._guard = folder, folder / guard
        self.results = collect_lines(folder / lines, study)
        self.methods = Methods.of(self.results, (1, 3, 6, 9))
        self.gains = Gains.of(self.results)

    def _row(self, name: str) -> tuple[Any, float]:
        """(score by target, cost share) of a method; retrieval by similarity as its table keeps it."""
        for method in (
            self.methods.baseline,
            self.methods.oracle,
            self.methods.race,
            *self.methods.searches,
            *self.methods.others,
        ):
            if method is not None and method.name == name:
                return method.score_T, method.cost_share(self.methods.oracle)
        with open(self.folder / "methods.csv", newline="", encoding="utf-8") as stream:
            row = next(row for row in csv.DictReader(stream) if row["method"] == name)
        with open(self.folder / "methods_cost.csv", newline="", encoding="utf-8") as stream:
            cost = next(row for row in csv.DictReader(stream) if row["method"] == name)
        share = float(cost["share of the oracle's cost"].removesuffix("%")) / 100
        return np.array([float(row[target]) for target in self.results.targets]), share

    def score(self, name: str) -> str:
        """Average score over targets, percent."""
        return one(self._row(name)[0].mean())

    def line(self, name: str) -> str:
        """A method's score, gain (none for scratch itself) and share of the oracle's cost."""
        return "; ".join([self.score(name), *([] if name == "prompt tuning" else [self.gain(name)]), self.cost(name)])

    def of_seed(self, name: str, seed: int) -> str:
        """A method's score and gain over scratch where only this seed of it is finished."""
        from softprompt.analysis.statistics import t_interval

        score_T = self._of_seed(name, seed)
        return f"{one(score_T.mean())}; {t_interval(score_T - self.methods.choices.scratch_T()).text(sign=True)}"

    def _of_seed(self, name: str, seed: int) -> Any:
        method = next(m for m in self.methods.others if m.name == name)
        return method.score_TR[:, self.results.seeds.index(seed)]

    def by_target(self, name: str = "", seed: int = 0) -> str:
        """The scores on every target of one seed of a method; the mean run from scratch where no name is given."""
        score_T = self._of_seed(name, seed) if name else self.methods.choices.scratch_T()
        return "; ".join(one(score) for score in score_T)

    def on(self, name: str, target: str) -> str:
        """Score on one target."""
        return one(self._row(name)[0][self.results.targets.index(target)])

    def gain(self, name: str, *, than: str = "", ends: bool = True) -> str:
        """Points over the mean run from scratch, or over another method, with Student's interval over targets."""
        from softprompt.analysis.statistics import t_interval

        base_T = self._row(than)[0] if than else self.methods.choices.scratch_T()
        interval = t_interval(self._row(name)[0] - base_T)
        return interval.text(sign=True) if ends else signed(interval.mean)

    def excess(self, name: str) -> str:
        """Points over the best of as many runs from scratch, with Student's interval."""
        from softprompt.analysis.statistics import t_interval

        method = next(m for m in (self.methods.oracle, *self.methods.searches) if m.name == name)
        return t_interval(method.score_T - self.methods.choices.scratch_T(method.tunings)).text(sign=True)

    def least_p(self, *names: str) -> str:
        """The least Holm-corrected p of methods against scratch, as one family."""
        from softprompt.analysis.statistics import family

        base_T = self.methods.choices.scratch_T()
        return one(min(d.p_holm for d in family([(n, self._row(n)[0] - base_T) for n in names])), 2)

    def cost(self, name: str) -> str:
        """Share of the oracle's cost."""
        return f"{one(100 * self._row(name)[1])} %"

    def table(self, name: str) -> str:
        """All numbers of a table of the report."""
        from softprompt.analysis import benchmarks, comparison, gains, predictors, searches

        made: dict[str, Callable[[], Any]] = {
            "scores": lambda: gains.score_table(self.results),
            "benchmarks": lambda: benchmarks.benchmark_table(self.results),
            "sources": lambda: comparison.against_sources_table(self.results),
            "predictors": lambda: predictors.predictor_table(self.results),
            "searches": lambda: searches.search_table(self.methods, self.results),
        }
        from softprompt.analysis.tables import show

        return "\n".join(" | ".join(show(value) for value in row[1:]) for row in made[name]().rows)

    def source(self, name: str) -> str:
        """Points of a source task over scratch, averaged over targets, with its interval."""
        from softprompt.analysis.statistics import t_interval

        s = self.results.sources.index(name)
        return t_interval(self.gains.points_ST[s]).text(sign=True)

    def pair(self, source: str, target: str, *, points: bool = False) -> str:
        """Relative error reduction of a pair in percent, or points over scratch."""
        place = self.results.sources.index(source), self.results.targets.index(target)
        return one(self.gains.points_ST[place]) if points else f"{one(self.gains.mean_ST[place])} %"

    def oracle(self) -> tuple[str, str]:
        """The oracle on rows that had no part in the choice, and on those that had."""
        from softprompt.analysis.methods import Methods

        return self.score("oracle"), one(Methods.of(self.results, (1,), apart=False).oracle.score_T.mean())

    def regret(self, name: str, tries: int = 1, *, ends: bool = True) -> str:
        """Regret at so many tries of a ranking, with its interval; ``random`` for random choice."""
        from softprompt.analysis.predictors import judged

        found, random, _ = judged(self.results, (tries,))
        interval = random[tries] if name == "random" else next(p for p in found if p.name == name).regret[tries]
        return interval.text() if ends else one(interval.mean)

    def guard(self, column: str) -> str:
        """Of all source prompts delivered blindly, the share in a column of the guard's table."""
        return self.guarded()[column]

    def guarded(self) -> dict[str, str]:
        """The row of the guard's table that has all source prompts, delivered blindly."""
        with open(self._guard, newline="", encoding="utf-8") as stream:
            return next(row for row in csv.DictReader(stream) if row["transfer"].endswith("blindly"))


def stability(rows: int, name: str, digits: int = 1, *, target: str = "cr") -> str:
    """A line of `benchmarks/results/stability.jsonl`: mean and deviation, or a gain or ratio with its interval."""
    line = _line("stability.jsonl", rows=rows, target=target)
    if name in line["scores"]:
        return f"{one(line['mean'][name])} ±{one(line['std'][name])}"
    mean, low, high = line[name]
    form = one if name.startswith("spread") else signed
    return f"{form(mean, digits)} [{form(low, digits)}, {form(high, digits)}]"


def promptability(task: str, what: str) -> str:
    """A score of `benchmarks/results/promptability.jsonl`, percent: ``prompt``, ``full``, ``majority``, ...; ``share`` of full's gain."""
    line = _line("promptability.jsonl", task=task)
    return f"{one(100 * line[what], 0)} %" if what == "share" else one(line[what])


def neighbours(method: str) -> str:
    """Of `benchmarks/results/neighbours.jsonl`: mean and deviation of a method's scores over seeds by target, numbers tuned, and
    seconds a run by target."""
    lines = [_line("neighbours.jsonl", method=method, target=target, steps=60) for target in ("cr", "sst2")]
    scores = [f"{one(line['mean'])} ±{one(line['spread'])}" for line in lines]
    return " ".join([*scores, f"{lines[0]['tuned']:,}", *(one(line["seconds"]) for line in lines)])


def neighbour(target: str, method: str, steps: int) -> str:
    """Mean and deviation of one line of the same."""
    line = _line("neighbours.jsonl", method=method, target=target, steps=steps)
    return f"{one(line['mean'])} ±{one(line['spread'])}"


def kin(ranking: str, step: int, what: str = "kin_first") -> str:
    """A share of `benchmarks/results/builtin_retrieval.jsonl`: of targets whose kin is ranked first."""
    return f"{one(_line('builtin_retrieval.jsonl', ranking=ranking, step=step)[what])} %"


def _line(name: str, **keys: object) -> dict[str, Any]:
    """The first line of a file of records with these values."""
    lines = (json.loads(line) for line in (RESULTS / name).read_text(encoding="utf-8").splitlines())
    return next(line for line in lines if all(line.get(key) == value for key, value in keys.items()))


def serving(
    name: str, digits: int = 1, *, percent: bool = False, scale: float = 1.0, file: str = "serving_speed", **which: Any
) -> str:
    """A figure of the last line of a serving benchmark with these facts; ``a/b`` is ``b`` of its ``a``."""
    lines = [json.loads(line) for line in (RESULTS / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()]
    value = [line for line in lines if all(line.get(key) == wanted for key, wanted in which.items())][-1]
    for part in name.split("/"):
        value = value[part]
    return f"{one(100 * value, digits)} %" if percent else one(scale * value, digits)


class SmolLM2(Evidence):
    """A study of docs/evidence-plan.md: the cells that are finished, and a second scratch line of twice the steps.

    Args:
        study: its name.
        longer: name of the second scratch line's study; its cells are read when they are asked for.
    """

    LINES: ClassVar[Mapping[str, str]] = {
        "smollm2": "few_rows", "smollm2-long-sources": "long_sources", "smollm2-full": "all_rows",
        "smollm2-long-scratch": "long_scratch", "smollm2-full-long-scratch": "all_rows_long_scratch",
    }  # fmt: skip
    """Name of the committed file of cells, by study."""

    def __init__(self, study: str, longer: str) -> None:
        from softprompt.analysis.lines import read_lines
        from softprompt.study.settings import load_study

        lines, settings = self.LINES[study], load_study(study)
        super().__init__(RESULTS / "smollm2", settings, f"{lines}.jsonl", f"{lines}_guard.csv")
        self._longer, self._seeds = longer, settings.seeds
        self._sources: dict[str, float] = {}
        self._skill_use: list[Mapping[str, Any]] = []
        for line in read_lines(self.folder / f"{lines}.jsonl"):
            if line["kind"] == "source":
                self._sources[line["cell"]] = line["result"]["scores"]["score"]
            if line.get("skill_use"):
                self._skill_use.append(line["skill_use"])

    @cached_property
    def longer(self) -> Any:
        """Results of the second scratch line."""
        from softprompt.analysis.lines import collect_lines
        from softprompt.study.settings import load_study

        return collect_lines(self.folder / f"{self.LINES[self._longer]}.jsonl", load_study(self._longer))

    def _scratch_T(self, longer: bool, tries: int = 1) -> Any:
        """The expected best of so many runs from scratch by target, of the study's own steps or of twice as many."""
        from softprompt.analysis.choice import Choices as Halves
        from softprompt.analysis.planned import with_scratch_of

        choices = Halves.of(with_scratch_of(self.results, self.longer)) if longer else self.methods.choices
        return choices.scratch_T(tries)

    def skill_use(self) -> str:
        """Least and greatest perplexity of the use of skills in SharPT's spaces, where each uses all 32."""
        assert {use["used"] for use in self._skill_use} == {32}
        found = [float(use["perplexity"]) for use in self._skill_use]
        return f"{one(min(found))}; {one(max(found))}"

    def mean(self, task: str) -> str:
        """Mean validation score of a task's source prompts."""
        return self.made(task).partition("; ")[0]

    def on_longer(self, target: str) -> str:
        """Score on a target of the longer scratch line."""
        return one(float(self.longer.base_T[self.longer.targets.index(target)]))

    def made(self, task: str) -> str:
        """Mean, least and greatest validation score of a task's source prompts, of the study's seeds."""
        found = [self._sources[f"{task}.{seed}"] for seed in self._seeds]
        return f"{one(sum(found) / len(found))}; {one(min(found))}; {one(max(found))}"

    def row(self, target: str, *, longer: bool = True) -> str:
        """Mean scores on the reporting half: from scratch, where wanted of twice the steps from scratch, and from each source."""
        t = self.results.targets.index(target)
        order = [self.results.sources.index(name) for name in ("sst2", "qnli", "qqp", "mnli", "winogrande", "cola")]
        scratch = [float(results.base_T[t]) for results in (self.results, *([self.longer] if longer else []))]
        return "; ".join(one(value) for value in (*scratch, *self.results.transfers_STR()[order, t].mean(axis=1)))

    def late_gain(self, *, longer: bool = False) -> str:
        """Points that scratch gains between its last two validations, mean over targets of the mean over seeds."""
        results = self.longer if longer else self.results
        gains = [
            np.mean([run.curve[-1].score - run.curve[-2].score for run in results.scratch(target)])
            for target in results.targets
        ]
        return one(float(np.mean(gains)))

    def best_ranking(self) -> str:
        """Question 2: least regret at one try of all rankings, random choice's, and what it saves."""
        from softprompt.analysis.predictors import judged

        found, random, _ = judged(self.results, (1,))
        best = min(found, key=lambda one: one.regret[1].mean)
        return f"{best.regret[1].text()}; {random[1].text()}; {best.against_random[1].points.text(sign=True)}"

    def kin(self) -> str:
        """Question 6: targets that chance gives, and the probability of as many as were found."""
        from softprompt.analysis.planned import kin_count, kin_of

        found = kin_count(self.results, kin_of(self.results.targets))
        return f"{one(found.expected)}; {one(found.p, 2)}"

    def race_kin(self) -> str:
        """Share of races that end with a prompt of the target's known kin, and what drawing a source task would give."""
        from softprompt.analysis.planned import kin_of

        known = kin_of(self.results.targets)
        races = [run for run in self.results.strategies if run.strategy == "race"]
        kin = np.mean([run.survivor.partition(".")[0] == known[run.target] for run in races])
        return f"{one(100 * kin, 0)} %; {one(100 / len(self.results.sources), 0)} %"

    def scratch(self, *, longer: bool = False) -> str:
        """Average over targets of a scratch line, reporting half."""
        return one(float(self._scratch_T(longer).mean()))

    def over(self, name: str = "", *, longer: bool = True, tries: int = 1, without: Sequence[str] = ()) -> str:
        """A method's points over the expected best of so many runs from scratch, with p and the share of targets that are better.

        Args:
            name: of the method; empty for k = 3 ranked by each target's default predictor.
            longer: against the line of twice the steps.
            tries: 1 for the mean run.
            without: targets that are left out of the mean.
        """
        kept = [t for t, target in enumerate(self.results.targets) if target not in without]
        return self._tested(self.points_T(name, longer=longer, tries=tries)[kept])

    def after_holm(self, other: SmolLM2) -> str:
        """p of question 1's test on this study, corrected over it and the same test of another."""
        from softprompt.analysis.statistics import family

        _, own = family([("1", other.points_T()), ("1e", self.points_T())])
        return f"{own.p_holm:.3f}"

    def points_T(self, name: str = "", *, longer: bool = True, tries: int = 1) -> Any:
        """A method's points by target; see `over`."""
        from softprompt.analysis.planned import default_score_T

        score_T = self._row(name)[0] if name else default_score_T(self.results)
        return score_T - self._scratch_T(longer, tries)

    def against(self, name: str, than: str) -> str:
        """A method's points over another, with p and the share of targets that are better."""
        return self._tested(self._row(name)[0] - self._row(than)[0])

    @staticmethod
    def _tested(points_T: Any) -> str:
        from softprompt.analysis.statistics import family

        (told,) = family([("", points_T)])
        return f"{told.points.text(sign=True)}; p {told.p:.3f}; {100 * told.better / told.targets:.0f} %"


class Together:
    """Several studies on the same targets, each target averaged over them first."""

    def __init__(self, *studies: SmolLM2) -> None:
        self.studies = studies

    def rows(self) -> str:
        """All numbers of a table of rankings, with one try and with three: points of regret, points saved over random
        choice, p, p after Holm, and on how many targets it saves."""
        one_try, three = self._rankings(1), self._rankings(3)
        return "; ".join(" | ".join([*a, *b]) for a, b in zip(one_try.values(), three.values(), strict=True))

    def lost(self, name: str, tries: int = 1) -> str:
        """Points of regret of a ranking."""
        return self._rankings(tries)[name][0].partition(" [")[0]

    def saved(self, name: str, tries: int = 1) -> str:
        """Points that a ranking saves over random choice."""
        return self._rankings(tries)[name][1].partition(" [")[0].lstrip("+")

    def _rankings(self, tries: int) -> dict[str, list[str]]:
        from softprompt.analysis.predictors import random_regret, regrets
        from softprompt.analysis.statistics import family, p_text, t_interval

        random_ST, by_study = [], []
        for study in self.studies:
            order = np.argsort(study.results.targets)
            random_ST.append(random_regret(study.results, tries)[order])
            by_study.append({name: points_T[order] for name, points_T in regrets(study.results, tries)[0].items()})
        random_T = np.mean(random_ST, axis=0)
        lost = {name: np.mean([found[name] for found in by_study], axis=0) for name in by_study[0]}
        saved = family([(name, random_T - points_T) for name, points_T in lost.items()])
        rows = {
            d.name: [one(lost[d.name].mean()), d.points.text(sign=True), p_text(d.p), p_text(d.p_holm), str(d.better)]
            for d in saved
        }
        return {**rows, "random": [t_interval(random_T).text()]}

    def let_through(self) -> str:
        """Source prompts in all, and how many of them the guard lets through; the share of those that is worse than scratch."""
        rows = [study.guarded() for study in self.studies]
        counts = [int(row["prompts"]) for row in rows]
        passed = [
            n * float(row["let through by the guard"].rstrip("%")) / 100 for n, row in zip(counts, rows, strict=True)
        ]
        worse = [float(row["worse, of those let through"].rstrip("%")) for row in rows]
        return f"{sum(counts)}; {one(sum(passed), 0)}; {one(max(worse))} %"


def pilot(units: str, *steps: int) -> str:
    """Validation scores of the MNLI source at steps, tuned at a rate in deviations of the embedding table's entries."""
    found = _line("decoder_defaults.jsonl", tasks="mnli", units=float(units))
    scores = {look["step"]: look["score"] for look in found["runs"]["mnli-1"]["curve"]}
    return "; ".join(one(scores[step]) for step in steps)


def taught(*steps: int) -> str:
    """Validation scores of the MNLI prompt that went on learning: before (step 0) and at steps, of `longer_source.jsonl`."""
    found = _line("longer_source.jsonl", task="mnli")
    scores = {0: found["beside"]["zero_step"], **{look["step"]: look["score"] for look in found["curve"]}}
    return "; ".join(one(scores[step]) for step in steps)


def untuned(target: str, *prompts: str) -> str:
    """Scores on a target of MNLI prompts that no step was made from, of `longer_source.jsonl`."""
    found = _line("longer_source.jsonl", task=target)
    return "; ".join(one(found["scores"][name]) for name in prompts)


def race_share(study: str) -> str:
    """Share of the oracle's cost that a study's races take, as known before they start, percent."""
    from softprompt.methods.spot.race import race_cost
    from softprompt.study.settings import load_study

    found = load_study(study)
    rule, rows = found.strategies, found.target_validation_rows // 2
    prompts = len(found.sources) * len(found.seeds)
    cost = race_cost(prompts, found.target, keep=rule.race_keep, look_rows=rule.race_rows, select_rows=rows)
    return f"{one(100 * cost.share)} %"


class Choices:
    """`benchmarks/results/sharpt_choices.jsonl`: SharPT's open choices, a line a variant, seed and encoder."""

    def __init__(self) -> None:
        lines = [json.loads(line) for line in (RESULTS / "sharpt_choices.jsonl").read_text().splitlines()]
        self.trained = {line["variant"]: line for line in lines if not line.get("codebook_only")}
        self.alone = {(line["encoder"], line["variant"]): line for line in lines if line.get("codebook_only")}

    def space(self, variant: str, encoder: str = "backbone") -> str:
        """Perplexity of skill use and mean cosine between source tasks, E tuned by equation 4 alone."""
        line = self.alone[encoder, variant]
        return f"{one(line['skill_use']['perplexity'])}; {self.between(line):.2f}"

    @staticmethod
    def between(line: Mapping[str, Any]) -> float:
        """Mean cosine of skill use between two different source tasks."""
        cosine = np.array(line["relations"]["among_sources"])
        return float(cosine[~np.eye(len(cosine), dtype=bool)].mean())

    def related(self, source: str, target: str, variant: str = "default", encoder: str = "backbone") -> str:
        """Cosine of a source and a target task."""
        found = self.alone[encoder, variant]["relations"]
        value = found["source_to_target"][found["sources"].index(source)][found["targets"].index(target)]
        return f"{value:.2f}"

    def perplexity(self, variant: str) -> str:
        """Perplexity of skill use after training on the sources."""
        return one(self.trained[variant]["skill_use"]["perplexity"])

    def scores(self, variant: str, *targets: str) -> str:
        """Percent on each target, and their average."""
        line = self.trained[variant]
        return "; ".join(one(value) for value in (*(line["scores"][t] for t in targets), line["score"]))

    def encoded(self, variant: str) -> str:
        """Percent that the encoder's tokens add to a training's forward tokens (two a training position, one a validation)."""
        cost = self.trained[variant]["cost"]
        return f"{100 * cost['encoder_tokens'] / (2 * cost['tokens'] + cost['eval_tokens']):.0f} %"


def main() -> int:
    """Check, or write; 1 where something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the figures of the records in their place")
    args = parser.parse_args()
    names = records()
    wrong = [line for page in PAGES for line in check(ROOT / page, names, write=args.write)]
    print("\n".join(wrong) if wrong else "every figure is that of its record")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
