"""What docs/evidence-plan.md fixed before the study ran: which predictor ranks for a target, and whether known kin comes out on top.

Letters: T target tasks, M source prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from softprompt.analysis.gains import finished_mean
from softprompt.analysis.methods import TOP_K, Methods
from softprompt.analysis.predictors import regrets
from softprompt.analysis.records import Floats, Results
from softprompt.errors import UnknownNameError, UsageError

K = 3
"""Tries that the default predictor is judged at, and used with."""
TIE = 1e-9
"""Points of regret below which two predictors tie."""


def default_predictors(results: Results, k: int = K) -> dict[str, str]:
    """For each target the predictor with the least mean regret at k over the *other* targets; the cheaper one of a tie.

    So the predictor that ranks for a target is chosen by targets that have no part in its test. Targets whose transfers are not
    all finished have no part; a predictor that lacks one of the others is passed over.

    Args:
        results: of a study with at least two finished targets.
        k: tries.

    Returns:
        By target, a name of `all_rankings`; targets for which none can be chosen are left out.
    """
    found, targets = regrets(results, k)
    names = sorted(found, key=lambda name: mean_cost(results, name))
    chosen = {}
    for t, target in enumerate(results.targets):
        others = [i for i, other in enumerate(targets) if other != t]
        means = {name: float(found[name][others].mean()) for name in names if others}
        usable = {name: mean for name, mean in means.items() if not np.isnan(mean)}
        if usable:
            least = min(usable.values())
            chosen[target] = next(name for name in names if name in usable and usable[name] <= least + TIE)
    return chosen


def mean_cost(results: Results, name: str) -> float:
    """Forward tokens that a ranking takes, mean over targets; similarities take a task embedding of each run."""
    costs = results.predictor_costs.get(name)
    if costs is None:
        found = [cost.tokens for cost in results.embedding_costs.values()]
        return float(np.mean(found)) if found else 0.0
    return float(np.mean([cost.tokens for cost in costs.values()])) if costs else 0.0


def default_score_T(results: Results, k: int = K, chosen: Mapping[str, str] | None = None) -> Floats:
    """Float [T], percent on the reporting rows of best_of_top_k with each target's own default predictor; NaN where unknown.

    Args:
        results: of a study.
        k: tries.
        chosen: what `default_predictors` gave, where it is known already.
    """
    chosen = default_predictors(results, k) if chosen is None else chosen
    methods = Methods.of(results, [k], averaged=True)
    scores = {m.ranking: m.score_T for m in methods.searches if m.strategy == TOP_K and m.k == k}
    return np.array(
        [scores[chosen[t]][i] if chosen.get(t) in scores else np.nan for i, t in enumerate(results.targets)]
    )


def with_scratch_of(results: Results, other: Results) -> Results:
    """A study's records held against another study's runs from scratch, e.g. longer ones.

    Args:
        results: of the study; its own runs from scratch are left out.
        other: with the same targets in the same order, and at least the study's seeds.

    Raises:
        UsageError: another list of targets.
    """
    if other.targets != results.targets:
        raise UsageError(
            f"the other runs from scratch are of {', '.join(other.targets)}, the study's of {', '.join(results.targets)}: take a "
            "study of the same targets."
        )
    scratch = [run for run in other.runs if run.source is None]
    return replace(results, runs=(*(run for run in results.runs if run.source is not None), *scratch))


@dataclass(frozen=True, kw_only=True)
class Kin:
    """How the known kin of the targets did among the source tasks.

    Attributes:
        ranks: by target, the place of the kin's mean score among the source tasks, 1 for the best; ties take the mean place.
        among_first: targets whose kin ranks first or second.
        expected: how many of them chance would give.
        p: probability that chance gives as many or more.
    """

    ranks: Mapping[str, float]
    among_first: int
    expected: float
    p: float


def kin_count(results: Results, kin: Mapping[str, str], places: int = 2) -> Kin:
    """Question 6: for how many targets does the known kin's mean rank among the first ``places`` source tasks?

    Args:
        results: of a study; targets with unfinished transfers are left out.
        kin: source task by target.
        places: how many places count.

    Raises:
        UnknownNameError: a kin that is no source of the study.
    """
    from scipy.stats import binom, rankdata

    scores_ST = finished_mean(results.transfers_STR(), axis=2)
    complete_T = np.asarray(~np.isnan(results.transfers_STR()).any(axis=(0, 2)))
    ranks = {}
    for target, source in kin.items():
        if source not in results.sources:
            raise UnknownNameError("source", source, results.sources)
        if target in results.targets and complete_T[results.targets.index(target)]:
            placed = rankdata(-scores_ST[:, results.targets.index(target)])
            ranks[target] = float(placed[results.sources.index(source)])
    first, chance = sum(rank <= places for rank in ranks.values()), min(1.0, places / len(results.sources))
    return Kin(
        ranks=ranks, among_first=first, expected=chance * len(ranks), p=float(binom.sf(first - 1, len(ranks), chance))
    )


def kin_of(names: Sequence[str]) -> dict[str, str]:
    """The kin that docs/evidence-plan.md names, of these targets."""
    known = {
        "cr": "sst2", "yelp_polarity": "sst2", "rte": "mnli", "cb": "mnli", "snli": "mnli", "mrpc": "qqp", "boolq": "qnli",
        "copa": "winogrande",
    }  # fmt: skip
    return {name: known[name] for name in names if name in known}
