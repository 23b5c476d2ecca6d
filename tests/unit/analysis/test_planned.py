"""What the plan fixed before the study ran."""

from dataclasses import replace

import numpy as np
import pytest
from tests.support.results import SEEDS, SOURCES, TARGETS, ladder

from softprompt.analysis.methods import Methods
from softprompt.analysis.planned import default_predictors, default_score_T, kin_count, with_scratch_of
from softprompt.analysis.records import Cost, PromptId, Results
from softprompt.analysis.verdict import verdicts
from softprompt.errors import UnknownNameError, UsageError


def told(by_target: dict[str, int]) -> dict[PromptId, dict[str, float]]:
    """A predictor that ranks the sources rightly (1) or backwards (-1), by target."""
    return {
        (s, r): {t: sign * (i + 0.01 * r) for t, sign in by_target.items()}
        for i, s in enumerate(SOURCES)
        for r in SEEDS
    }


def study() -> Results:
    """`own` is right on x alone; `others` everywhere but on x."""
    predictors = {"own": told({"x": 1, "y": -1, "z": -1}), "others": told({"x": -1, "y": 1, "z": 1})}
    return replace(ladder(), embeddings={}, predictors=predictors, predictor_costs={})


def test_a_target_has_no_part_in_choosing_its_predictor() -> None:
    found = default_predictors(study())
    assert found["x"] == "others"  # right on y and z, and wrong on x itself, where `own` would be right
    scores = dict(zip(TARGETS, default_score_T(study()), strict=True))
    assert scores["x"] == pytest.approx(62.0)  # it puts a.0, a.1 and b.0 first: the best of them
    assert scores["y"] < 71
    told_first = {v.question: v for v in verdicts(Methods.of(study(), [3]), study())}
    planned = told_first["Does retrieval with 3 tries beat scratch, ranked by what is best on the other targets?"]
    assert planned.told.endswith("(ranked by others for 1, own for 2).")


def test_known_kin_are_in_the_verdict() -> None:
    results = ladder()
    names = {"a": "sst2", "f": "mnli"}
    renamed = replace(
        results,
        sources=tuple(names.get(s, s) for s in results.sources),
        targets=tuple({"x": "cr", "y": "rte"}.get(t, t) for t in results.targets),
        runs=tuple(
            replace(
                run,
                target={"x": "cr", "y": "rte"}.get(run.target, run.target),
                source=None if run.source is None else (names.get(run.source[0], run.source[0]), run.source[1]),
            )
            for run in results.runs
        ),
        embeddings={},
    )
    found = {v.question: v for v in verdicts(Methods.of(renamed, []), renamed)}
    kin = found["Does the known kin come out first or second among the source tasks?"]
    assert kin.told == "For 1 of 2 targets; chance would give 0.7, and as many or more with probability 0.56."


def test_transfer_can_be_held_against_another_studys_scratch() -> None:
    results = ladder()
    longer = replace(results, runs=tuple(replace(run, score=run.score + 5.0) for run in results.runs))
    found = with_scratch_of(results, longer)
    assert np.allclose(found.base_T, results.base_T + 5.0)
    assert np.array_equal(found.transfers_STR(), results.transfers_STR())
    with pytest.raises(UsageError, match="of x, y, the study's of x, y, z"):
        with_scratch_of(results, replace(longer, targets=("x", "y")))


def test_of_two_predictors_that_tie_the_cheaper_is_taken() -> None:
    right = told(dict.fromkeys(TARGETS, 1))
    costs = {"dear": dict.fromkeys(TARGETS, Cost(tokens=9.0)), "cheap": dict.fromkeys(TARGETS, Cost(tokens=1.0))}
    results = replace(ladder(), embeddings={}, predictors={"dear": right, "cheap": right}, predictor_costs=costs)
    assert set(default_predictors(results).values()) == {"cheap"}


def test_kin_are_counted_by_the_rank_of_their_mean() -> None:
    found = kin_count(ladder(), {"x": "f", "y": "e", "z": "a"})
    assert dict(found.ranks) == {"x": 1.0, "y": 2.0, "z": 6.0}
    assert (found.among_first, found.expected) == (2, pytest.approx(1.0))
    assert found.p == pytest.approx(1 - (2 / 3) ** 3 - 3 * (1 / 3) * (2 / 3) ** 2)
    # The plan's own figure: 5 of 8 or more, each by chance with 2 of 6.
    from scipy.stats import binom

    assert round(float(binom.sf(4, 8, 1 / 3)), 2) == 0.09
    with pytest.raises(UnknownNameError):
        kin_count(ladder(), {"x": "nobody"})


def test_unfinished_targets_are_not_counted() -> None:
    results = ladder()
    cut = replace(results, runs=tuple(run for run in results.runs if (run.target, run.source) != ("x", ("f", 0))))
    assert set(kin_count(cut, {"x": "f", "y": "f"}).ranks) == {"y"}
    assert np.isnan(default_score_T(cut)[0])
