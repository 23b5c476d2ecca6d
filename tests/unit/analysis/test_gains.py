"""Gains, tables, similarities and strategies against small cases worked out by hand."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from tests.support.results import ladder
from tests.support.results import pair_study as made

from softprompt.analysis.gains import Gains, best_sources, best_table, gain_table, relative_error_reduction, score_table
from softprompt.analysis.predictors import RANDOM, constant, predictor_table, rankings
from softprompt.analysis.records import Results, RunScore
from softprompt.analysis.similarity import correlations, run_similarities, similarity_NN, task_similarities
from softprompt.analysis.tables import show
from softprompt.errors import UnknownNameError


def test_relative_error_reduction() -> None:
    assert relative_error_reduction(97.0, 92.7) == pytest.approx(58.904, abs=1e-3)
    assert relative_error_reduction(40.0, 50.0) == -20.0
    assert relative_error_reduction(100.0, 100.0) == 0.0
    assert np.isnan(relative_error_reduction(99.0, 100.0))
    assert np.isnan(relative_error_reduction(np.nan, 50.0))


def test_gains_by_pair_and_seed() -> None:
    gains = Gains.of(made())
    assert gains.scores_STR.shape == (2, 2, 2)
    # Against the mean baseline of x (55).
    assert gains.gain_STR[0, 0] == pytest.approx([100 * 20 / 45, 100 * 10 / 45])
    assert gains.mean_ST[0, 0] == pytest.approx(100 * 15 / 45)
    assert gains.points_ST[0, 0] == pytest.approx(15.0)
    assert made().transfers_STR(half=0)[0, 0, 0] == 76.0
    further = replace(made(), runs=(*made().runs, RunScore(target="x", seed=9, score=70.0)))
    assert Gains.of(further).base_T[0] == 60.0  # all runs from scratch are the baseline


def test_unfinished_cells_are_shown_as_such() -> None:
    results = made(drop=3)
    table = score_table(results)
    b = table.rows[2]
    a = table.rows[1]
    assert (show(b[2]), show(a[2])) == ("pending", "80.0 (1 of 2)")
    assert "pending" in gain_table(results).to_text()
    best = best_sources(results)
    assert best.source_T == ("a", None)
    assert np.isnan(best.average[1])
    assert show(best_table(results).rows[-1][3]) == "pending"
    text = table.to_csv()
    row = list(csv.reader(io.StringIO(text)))[3]
    assert row == ["b", "50.0", "14.142136", "2/2", "", "", "0/2"]
    assert "0.0" not in show(b[2])
    latex = table.to_latex()
    assert "pending" in latex
    assert r"\textbf{70.0}$_{7.1}$" in latex


def test_perfect_baseline_is_undefined_not_pending() -> None:
    runs = [RunScore(target="x", seed=0, score=100.0), RunScore(target="x", seed=0, score=90.0, source=("a", 0))]
    results = Results(sources=("a",), targets=("x",), seeds=(0,), runs=tuple(runs))
    assert show(gain_table(results).rows[0][1]) == "undefined"


def test_similarities_match_their_definitions() -> None:
    random = np.random.default_rng(0)
    one, two = random.normal(size=(5, 7)), random.normal(size=(4, 7))
    cos = lambda u, v: float(u @ v / np.linalg.norm(u) / np.linalg.norm(v))  # noqa: E731
    assert similarity_NN([one, two], "average")[0, 1] == pytest.approx(cos(one.mean(0), two.mean(0)))
    pairs = np.mean([cos(u, v) for u in one for v in two])
    assert similarity_NN([one, two], "per_token")[0, 1] == pytest.approx(pairs)
    with pytest.raises(UnknownNameError, match="per_token"):
        similarity_NN([one], "per-token")


def test_clusters_put_like_tasks_together() -> None:
    results = made()
    by_task = task_similarities(results.embeddings)
    assert by_task.names == ("a", "b", "x", "y")
    pairs = [results.embeddings["a", i] for i in (0, 1)], [results.embeddings["x", i] for i in (0, 1)]
    mean = np.mean([similarity_NN([u, v])[0, 1] for u in pairs[0] for v in pairs[1]])
    assert by_task.matrix_NN[0, 2] == pytest.approx(mean)
    order = [by_task.names[i] for i in by_task.order]
    assert abs(order.index("a") - order.index("x")) == 1
    assert abs(order.index("b") - order.index("y")) == 1
    every = run_similarities(results.embeddings, "per_token")
    assert every.names[:3] == ("a_1", "a_2", "b_1")
    assert every.linkage.shape == (7, 4)
    assert task_similarities({}).order == ()


def test_correlation_is_over_source_tasks() -> None:
    x = correlations(made())[0]
    assert (x.target, len(x.prompts), x.sources, x.r) == (
        "x",
        4,
        2,
        None,
    )  # two sources are too few, four prompts or not
    missing = correlations(made(drop=3))[1]
    assert (missing.missing, missing.r, len(missing.gain_M)) == (3, None, 1)
    six = correlations(ladder())[0]
    assert six.r is not None
    assert six.p is not None
    assert (six.sources, six.r > 0.95) == (6, True)
    assert 0 < six.p <= 4 / 720  # of 720 orders of six sources, those as good in either direction


def test_a_constant_predictor_is_refused() -> None:
    results = made()
    sizes = {prompt: dict.fromkeys(results.targets, 8000.0) for prompt in results.prompts}
    told = {prompt: {"x": float(i), "y": float(-i)} for i, prompt in enumerate(results.prompts)}
    both = replace(results, predictors={"data-size": sizes, "told": told})
    assert constant(both) == ("data-size",)
    assert set(rankings(both)) == {"average", "per_token", "told"}
    table = predictor_table(both)
    assert table is not None
    assert "data-size gives all source prompts one value" in table.notes[-1]
    assert table.rows[-1][0] == RANDOM


def test_regret_beside_random_choice() -> None:
    results = ladder()
    table = predictor_table(results)
    assert table is not None
    rows = {str(row[0]): row for row in table.rows}
    best, worst = rows["per-token average cosine similarity"], rows["backwards"]
    assert best[1] == "0.1 [0.1, 0.1]"  # it puts the first run of f first, a tenth of a point below the second
    assert worst[1] == "10.1 [10.1, 10.1]"
    assert rows[RANDOM][1] == "5.1 [5.1, 5.1]"  # 70.1 less the mean of all twelve, 65.05
    assert str(best[4]).startswith("no: +5.0")  # three targets cannot show it after correction
    assert str(best[-1]).startswith("+1.00")
    assert str(worst[-1]).startswith("-1.00")
    assert predictor_table(replace(results, runs=())) is None
