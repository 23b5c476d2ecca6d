"""Searching for a source prompt: how much of the search can be dropped, what is luck, and how races went (SPoT 3.3).

A search over k runs is held against the best of equally many runs from scratch, chosen on the same rows.

Letters: T target tasks, R runs on a target.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from softprompt.analysis.choice import Choices, search_noise
from softprompt.analysis.methods import (
    PAPER_K,
    PAPER_PROMPTS,
    RACE,
    TOP_K,
    Methods,
    MethodScores,
    paper_k,
)
from softprompt.analysis.records import Results
from softprompt.analysis.statistics import (
    Difference,
    Interval,
    family,
    p_text,
    ratio_interval,
    share_text,
    t_interval,
    what_targets_can_show,
)
from softprompt.analysis.tables import PENDING, Row, Table, number


@dataclass(frozen=True, kw_only=True)
class Search:
    """One way of searching, over the targets.

    Attributes:
        method: its scores and costs.
        gain: points over the mean run from scratch, with its test, corrected over all searches.
        excess: points over the expected best of equally many runs from scratch.
        kept: share of the oracle's gain; NaN where the oracle's is not clear of zero.
        cost: share of the oracle's forward tokens.
    """

    method: MethodScores
    gain: Difference
    excess: Interval
    kept: Interval
    cost: float


def searches(found: Methods) -> list[Search]:
    """Every search: best_of_top_k by every ranking, random choice, the race, and the oracle itself."""
    rows = [*found.searches, *([found.race] if found.race is not None else []), found.oracle]
    whole_T = found.gain_T(found.oracle)
    gains = family([(m.name, found.gain_T(m)) for m in rows])
    return [
        Search(
            method=m,
            gain=gain,
            excess=t_interval(m.score_T - found.choices.scratch_T(m.tunings)),
            kept=ratio_interval(found.gain_T(m), whole_T),
            cost=m.cost_share(found.oracle),
        )
        for m, gain in zip(rows, gains, strict=True)
    ]


def search_table(found: Methods, results: Results) -> Table:
    """`searches` as a table; the paper's share of tries is 9 of 48."""
    body: list[Row] = []
    for row in searches(found):
        body.append(
            (
                row.method.name,
                f"{row.method.tunings} of {len(results.prompts)}",
                number(float(row.method.score_T.mean())),
                row.gain.points.text(sign=True),
                p_text(row.gain.p_holm),
                row.excess.text(sign=True),
                share_text(row.kept, row.method.finished and found.oracle.finished),
                PENDING if np.isnan(row.cost) else f"{100 * row.cost:.1f}%",
            )
        )
    total, fewest = len(results.prompts), found.choices.fewest_scratch
    short = f"; a search over more than {fewest} is held against the best of {fewest}" if fewest < total else ""
    return Table(
        name="searches",
        title="Searching for a source prompt: gain, luck and cost",
        columns=(
            "search", "tried", "score", "gain over scratch", "p (Holm)", "excess over as many seeds", "oracle's gain kept",
            "share of the oracle's cost",
        ),
        rows=tuple(body),
        notes=(
            f"{found.choices.note} SPoT tries {PAPER_K} of {PAPER_PROMPTS}; here that share is {paper_k(total)} of {total}.",
            f"Gain: points over the mean of all runs from scratch, {fewest} a target. Excess: over the expected best of as many "
            f"of them, chosen on the same rows{short}. Kept: only where the oracle's own gain is clear of zero.",
            f"{what_targets_can_show(len(results.targets))} p: corrected over all lines of this table. Cost: forward-token "
            "equivalents, with what the ranking costs.",
        ),
    )  # fmt: skip


def paper_table(results: Results, ks: tuple[int, ...]) -> Table:
    """The same as SPoT's Table 3 has it: chosen and reported on the same rows."""
    table = search_table(Methods.of(results, ks, apart=False), results)
    note = (
        "Chosen and reported on the same rows, as the papers do: the more tries, the more luck is in a line. The table of searches "
        "keeps choice and report apart."
    )
    title = "Searches as SPoT's Table 3 counts them"
    return replace(table, name="strategies", title=title, notes=(note, *table.notes[1:]))


def luck_table(found: Methods, results: Results) -> Table:
    """The best source prompt of every target, on the rows that chose it and on others, beside as many seeds from scratch."""
    same = Choices.of(results, apart=False)
    k = min(found.choices.fewest_scratch, len(results.prompts))
    body: list[Row] = []
    everyone = range(len(results.prompts))
    columns: list[list[float]] = []
    for t, target in enumerate(results.targets):
        base, other = found.choices.scratch(t), found.choices.best(t, everyone)
        luck = same.best(t, everyone) - other
        noise = search_noise(found.choices, t, max(len(results.sources), 1))
        ends = [float("nan")] * 2 if np.isnan(noise).any() else np.quantile(noise, [0.025, 0.975]).tolist()
        excess = found.choices.random(t, k) - found.choices.scratch(t, k) if k else float("nan")
        columns.append([base, other, other - base, luck, excess])
        gain = Interval(mean=other - base, low=ends[0], high=ends[1])
        body.append((target, number(base), number(other), gain.text(sign=True), number(luck), number(excess)))
    means = np.array(columns).mean(axis=0) if columns else np.full(5, np.nan)
    gain_all = t_interval([row[2] for row in columns])
    body.append(
        ("average", number(means[0]), number(means[1]), gain_all.text(sign=True), number(means[3]), number(means[4]))
    )
    return Table(
        name="luck",
        title="The best source prompt of each target, and how much of its gain is luck",
        columns=(
            "target",
            "from scratch",
            "best source prompt",
            "gain [95%]",
            "luck of the search",
            f"excess, k = {k}",
        ),
        rows=tuple(body),
        notes=(
            f"{found.choices.note} Luck: what the best prompt seems better by on all rows, where it was also chosen. Excess: expected "
            f"best of {k} random source prompts less that of {k} runs from scratch, both chosen on the same rows.",
            "Intervals of single targets: all runs drawn anew and the search held again; they hold the noise of runs, not that of "
            "rows. The average's is Student's over targets.",
        ),
    )


def race_table(found: Methods, results: Results) -> Table | None:
    """The race of every target: how it went, who won, what it scored and cost; None where none was run."""
    if found.race is None:
        return None
    body: list[Row] = []
    for t, target in enumerate(results.targets):
        races = [run for run in results.strategies if run.strategy == RACE and run.target == target]
        shares = []
        for own, whole in (
            (found.race.steps_TR[t], found.oracle.steps_TR[t]),
            (found.race.tokens_TR[t], found.oracle.tokens_TR[t]),
        ):
            share = float(own.mean() / whole.mean()) if whole.mean() > 0 else float("nan")
            shares.append(PENDING if np.isnan(share) else f"{100 * share:.1f}%")
        body.append(
            (
                target,
                "; ".join(dict.fromkeys(" > ".join(map(str, run.race_field)) for run in races)) or PENDING,
                ", ".join(run.survivor for run in races) or PENDING,
                number(float(found.race.score_TR[t].mean())),
                number(float(found.oracle.score_TR[t].mean())),
                *shares,
            )
        )
    return Table(
        name="race",
        title="A race over all source prompts, as it was run",
        columns=("target", "field", "winners by seed", "race", "oracle", "share of steps", "share of tokens"),
        rows=tuple(body),
        notes=(
            f"One race a target and seed, all runs in one batch; one run from scratch races along. Each rung keeps "
            f"{results.race_keep:.0%} of the field and comes {1 / results.race_keep:.1f} times as late as the one before, by "
            f"{f'at most {results.race_rows}' if results.race_rows else 'all'} of the rows that choose checkpoints. Shares of the "
            "oracle's steps and forward-token equivalents: all training, and the validations that choices are made on. The "
            "last survivor alone is one run, however few source prompts the oracle tries.",
        ),
    )


def paper_search(found: Methods, prompts: int) -> MethodScores | None:
    """best_of_top_k at SPoT's share of tries, by SPoT's ranking, or by the first there is."""
    k = paper_k(prompts)
    return found.named(TOP_K, "per_token", k) or found.named(TOP_K, None, k)
