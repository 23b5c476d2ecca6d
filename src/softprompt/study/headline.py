"""The figures of a study in one place: the bargain, the guard, the gain beyond luck, and whether similarity predicts it.

Letters: T target tasks, R runs.
"""

from __future__ import annotations

import numpy as np

from softprompt.study.analysis import relative_error_reduction
from softprompt.study.bargain import Bargain, bargains, share_text
from softprompt.study.embeddings import SHORT_NAMES
from softprompt.study.guarded import Guarded, share_of
from softprompt.study.judged import features
from softprompt.study.methods import choice_note, cost_share, differences, with_interval
from softprompt.study.outcomes import PAPER_K, PAPER_PROMPTS, RACE, REPLAYED, Outcomes, paper_k
from softprompt.study.records import Results
from softprompt.study.statistics import Interval, bootstrap
from softprompt.study.tables import PENDING, UNDEFINED, Cell, Table

NO_ROWS = "needs the targets' rows, which were not at hand"


def headline_table(found: Outcomes, results: Results, compared: Guarded | None = None) -> Table:
    """The figures that a study is judged by, with intervals, beside the papers'.

    Args:
        found: the study's outcomes.
        results: its records.
        compared: comparisons by rows, where gold answers were at hand.
    """
    rows = bargains(found)
    body: list[tuple[str | float | Cell | None, ...]] = [
        *_bargain_lines(rows, results),
        *_guard_lines(compared, results),
        ("excess relative error reduction of the best source prompt", _excess(found), "–"),
        _beaten_line(compared, results),
        ("Spearman's rho of per-token similarity and gain, mean over targets", _spearman(results), "–"),
        *_sharpt_lines(found),
    ]
    return Table(
        name="figures",
        title="The figures in one place, with 95% intervals",
        columns=("figure", "here", "SPoT"),
        rows=tuple(body),
        notes=(
            f"{choice_note(found)} Intervals: bootstrap over targets, then seeds. Gain is over one run from scratch; excess is "
            f"over the best of equally many runs from scratch, of {found.ways.fewest_scratch} where the search tries more. "
            "Kept: share of the oracle's; open: the data do not bound it.",
            "SPoT's numbers are gains over the mean run from scratch, chosen and reported on the same rows.",
        ),
    )


def _bargain_lines(rows: list[Bargain], results: Results) -> list[tuple[str, str, str]]:
    total = len(results.prompts)
    lines = []
    tries = sorted({paper_k(total), *((PAPER_K,) if total > PAPER_K else ())})
    for k in tries:
        own = [row for row in rows if row.outcome.strategy == "best_of_top_k" and row.outcome.k == k]
        known = [row for row in own if not np.isnan(row.gain_kept.mean)]
        best = max(known, key=lambda row: row.gain_kept.mean, default=None)
        paper = f"80% at {PAPER_K} of {PAPER_PROMPTS}"
        by = f"best_of_top_k at {k} of {total}"
        if best is None:
            nothing = own and all(row.outcome.finished for row in own)
            lines += [(f"gain kept by {by}", "no gain to keep" if nothing else PENDING, paper)]
            continue
        ranking = SHORT_NAMES.get(best.outcome.ranking, best.outcome.ranking)
        lines += _kept(f"{by}, best ranking ({ranking})", best, paper)
    race = next((row for row in rows if row.outcome.strategy in (RACE, REPLAYED)), None)
    told = REPLAYED if race is not None and race.outcome.strategy == REPLAYED else RACE
    paper = f"90% at 15 of {PAPER_PROMPTS}"
    if race is None or np.isnan(race.cost):
        return [*lines, (f"gain kept by {told}", PENDING, paper)]
    return [
        *lines,
        *_kept(told, race, paper),
        (f"cost of {told}, share of the oracle's", f"{100 * race.cost:.0f}%", "31%"),
    ]


def _kept(by: str, row: Bargain, paper: str) -> list[tuple[str, str, str]]:
    done = row.outcome.finished
    return [
        (f"gain kept by {by}", share_text(row.gain_kept, done), paper),
        (f"excess kept by {by}", share_text(row.excess_kept, done), "–"),
    ]


def _guard_lines(compared: Guarded | None, results: Results) -> list[tuple[str, str, str]]:
    words = "delivered prompts that are worse than scratch beyond noise"
    if compared is None or compared.blind(len(results.targets)):
        return [(words, NO_ROWS, "not guarded")]
    harm = share_of(compared.harms, "every source prompt, blindly")
    if harm is None:
        return [(words, PENDING, "not guarded")]
    return [
        (f"{words}, without the guard", f"{100 * harm.worse / harm.delivered:.1f}% of {harm.delivered}", "not guarded"),
        (f"{words}, with the guard", f"{100 * harm.kept_worse / harm.delivered:.1f}% of {harm.delivered}", "–"),
    ]


def _excess(found: Outcomes) -> str:
    """Relative error reduction of the oracle against the best of equally many runs from scratch, mean over targets."""
    best_T1 = found.ways.scratch_T(found.oracle.tunings)[:, None]
    gain_TR = relative_error_reduction(found.oracle.score_TR, best_T1)
    interval = bootstrap(gain_TR[:, :1])  # one number a target
    return PENDING if np.isnan(interval.mean) else f"{with_interval(interval, sign=True)} %"


def _beaten_line(compared: Guarded | None, results: Results) -> tuple[str, str, str]:
    words = "targets where the best source prompt beats the best run from scratch beyond noise"
    if compared is None or compared.blind(len(results.targets)):
        return words, NO_ROWS, "–"
    if not compared.beaten:
        return words, PENDING, "–"
    hits, missing = sum(test.beyond_noise for test in compared.beaten), len(results.targets) - len(compared.beaten)
    return words, f"{hits} of {len(compared.beaten)}" + (f" ({missing} more not tested)" if missing else ""), "–"


def _spearman(results: Results) -> str:
    from softprompt.methods.spot.judging import bootstrap_interval, rank_correlation

    names, features_TMF, gain_TM = features(results)
    complete = ~np.isnan(gain_TM).any(axis=1)
    if "per_token" not in names or not complete.any():
        return PENDING
    column = names.index("per_token")
    found = [rank_correlation(features_TMF[t, :, column], gain_TM[t])[0] for t in np.flatnonzero(complete)]
    mean, low, high = bootstrap_interval(found)
    if np.isnan(mean):  # all predictions or all gains are alike
        return UNDEFINED if complete.all() else PENDING
    return with_interval(Interval(mean=mean, low=low, high=high), 2, sign=True)


def _sharpt_lines(found: Outcomes) -> list[tuple[str, str, str]]:
    """SharPT against SPoT's retrieval and what is dearer than either, and its cost."""
    others = [o for o in found.searches if o.strategy == "best_of_top_k" and o.ranking == "per_token"]
    others += [o for o in found.methods if o.strategy == "weighted_average"]
    others += [found.oracle, *(o for o in found.methods if o.strategy in ("model_tuning", "multitask_model_tuning"))]
    own = next((o for o in found.methods if o.strategy == "sharpt"), None)
    if own is None:
        return []
    share = cost_share(own, found.oracle)
    lines = [
        (f"SharPT against {name}, points", with_interval(interval, sign=True), "–")
        for name, interval in differences(found, "sharpt", others)
    ]
    return [
        *lines,
        ("SharPT's cost, share of the oracle's", PENDING if np.isnan(share) else f"{100 * share:.1f}%", "–"),
    ]
