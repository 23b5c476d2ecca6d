"""Gains, tables, similarities and strategies against small cases worked out by hand."""

import csv
import io

import numpy as np
import pytest

from softprompt.errors import UnknownNameError
from softprompt.study.analysis import Gains, best_sources, best_table, gain_table, relative_error_reduction, score_table
from softprompt.study.embeddings import (
    correlations,
    run_similarities,
    similarity_NN,
    task_similarities,
)
from softprompt.study.records import Results, RunScore
from softprompt.study.retrieval import best_of_top_k, expected_best_of_random, rank, strategy_rows, strategy_table
from softprompt.study.tables import Cell, show

SOURCES, TARGETS, SEEDS = ("a", "b"), ("x", "y"), (0, 1)


def made(drop: int = 0, embeddings: bool = True) -> Results:
    """Two sources, two targets, two seeds; `drop` transfers at the end are unfinished."""
    base = {("x", 0): 50.0, ("x", 1): 60.0, ("y", 0): 80.0, ("y", 1): 80.0}
    new = {
        ("a", 0, "x"): 75.0, ("a", 1, "x"): 65.0, ("b", 0, "x"): 40.0, ("b", 1, "x"): 60.0,
        ("a", 0, "y"): 80.0, ("a", 1, "y"): 82.0, ("b", 0, "y"): 90.0, ("b", 1, "y"): 88.0,
    }  # fmt: skip
    runs = [RunScore(target=t, seed=s, score=v) for (t, s), v in base.items()]
    runs += [
        RunScore(target=t, seed=s, score=v, source=(source, s), halves=(v + 1, v - 1))
        for (source, s, t), v in new.items()
    ][: len(new) - drop]
    keys = {("a", 0): [1, 0], ("a", 1): [1, 0.1], ("b", 0): [0, 1], ("b", 1): [0.1, 1]}
    keys |= {("x", 0): [1, 0.2], ("x", 1): [1, 0.3], ("y", 0): [0.2, 1], ("y", 1): [0.3, 1]}
    prompts = {key: np.array([value, value], dtype=np.float64) for key, value in keys.items()}
    return Results(
        sources=SOURCES, targets=TARGETS, seeds=SEEDS, runs=tuple(runs), embeddings=prompts if embeddings else {}
    )


def test_relative_error_reduction() -> None:
    assert relative_error_reduction(97.0, 92.7) == pytest.approx(58.904, abs=1e-3)
    assert relative_error_reduction(40.0, 50.0) == -20.0
    assert relative_error_reduction(100.0, 100.0) == 0.0
    assert np.isnan(relative_error_reduction(99.0, 100.0))
    assert np.isnan(relative_error_reduction(np.nan, 50.0))


def test_gains_by_pair_and_seed() -> None:
    gains = Gains.of(made())
    assert gains.scores_STR.shape == (2, 2, 2)
    # Against the mean baseline of x (55) and against the baseline of the same seed (50, 60).
    assert gains.gain_STR[0, 0] == pytest.approx([100 * 20 / 45, 100 * 10 / 45])
    assert gains.paired_STR[0, 0] == pytest.approx([50.0, 12.5])
    assert gains.mean_ST[0, 0] == pytest.approx(100 * 15 / 45)
    assert Gains.of(made(), half=0).scores_STR[0, 0, 0] == 76.0
    assert np.isnan(Gains.of(made(), half=0).base_TR).all()


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


def test_correlation_of_similarity_and_gain() -> None:
    x = correlations(made())[0]
    assert x.target == "x"
    assert len(x.prompts) == 4
    assert x.r is not None
    assert x.r > 0.8
    missing = correlations(made(drop=3))[1]
    assert (missing.missing, missing.r, len(missing.gain_M)) == (3, None, 1)


def test_rank_and_best_of_top_k() -> None:
    assert rank(np.array([0.1, 0.9, np.nan, 0.9])) == [1, 3, 0]
    scores = np.array([10.0, 20.0, 30.0, np.nan])
    values = np.array([[4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0]])
    assert best_of_top_k(scores, values, 2)[0] == 20.0
    assert np.isnan(best_of_top_k(scores, values, 2)[1])


def test_expected_best_of_random_is_exact() -> None:
    from itertools import combinations

    scores = np.random.default_rng(1).normal(size=6)
    for k in (1, 2, 5, 6):
        assert expected_best_of_random(scores, k) == pytest.approx(np.mean([max(c) for c in combinations(scores, k)]))


def test_strategy_rows() -> None:
    results = made()
    rows = {(row.strategy, row.ranking, row.k): row for row in strategy_rows(results, ks=(1, 3, 15))}
    assert ("best_of_top_k", "average", 15) not in rows  # there are four prompts
    oracle = rows["oracle", "", 4]
    assert oracle.average.value == pytest.approx((75 + 90) / 2)
    one = rows["best_of_top_k", "average", 1]
    # x ranks a_1 first for both runs (its direction is nearest to [1, 0.1]); y ranks b_1.
    assert one.average.value == pytest.approx((65 + 88) / 2)
    assert one.absolute.value == pytest.approx(((65 - 50 + 88 - 80) / 2 + (65 - 60 + 88 - 80) / 2) / 2)
    assert one.relative.std == pytest.approx(np.std([(30 + 40) / 2, (12.5 + 40) / 2], ddof=1))
    assert one.saved == 0.75
    assert one.kept == pytest.approx((76.5 - 67.5) / (82.5 - 67.5))
    table = strategy_table(list(rows.values()), targets=2)
    assert "best_of_top_k, k = 1" in table.to_text()
    pending = strategy_rows(made(drop=1), ks=(1,))
    oracle = next(row for row in pending if row.strategy == "oracle")
    assert (oracle.average.value, oracle.targets_done) == (None, 1)


def test_a_further_predictor_stands_in_the_same_table() -> None:
    results = made(embeddings=False)
    predictor = {("b", 0): {"x": 3.0, "y": 0.0}, ("a", 0): {"x": 1.0, "y": 9.0}}
    predictor |= {("a", 1): {"x": 0.0, "y": 0.0}, ("b", 1): {"x": 0.0, "y": 0.0}}
    results = Results(sources=SOURCES, targets=TARGETS, seeds=SEEDS, runs=results.runs, predictors={"size": predictor})
    row = next(row for row in strategy_rows(results, ks=(1,)) if row.ranking == "size")
    assert row.average == Cell(value=60.0)  # no run of the target had a part in this ranking: it has no spread
