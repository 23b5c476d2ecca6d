"""Plans: counts by hand, what is finished, and where every assumed number is named."""

from pathlib import Path

import pytest
from tests.support.analytic import AnalyticRunner
from tests.support.small_study import made, run

from softprompt.errors import UsageError
from softprompt.study.plan import plan_study, shape_of, t5_shape
from softprompt.study.run import clock
from softprompt.study.settings import load_study


def test_prompt_steps_of_the_paper() -> None:
    plan = plan_study(load_study("paper"))
    rows = {row.kind: row for row in plan.rows}
    assert (rows["source"].cells, rows["source"].steps) == (48, 48 * 262_144)
    assert (rows["transfer"].cells, rows["transfer"].steps) == (480, 480 * 100_000)
    assert rows["evaluation"].steps == 0
    # The embeddings at 10,000 steps cost nothing; those at the other four steps do, for 26 tasks and 3 seeds.
    assert rows["embedding"].steps == 78 * (1000 + 3000 + 30_000 + 100_000)
    one, eight = plan.estimates[1:]
    assert one.seconds is not None
    assert eight.seconds is not None
    assert one.seconds / 9 < eight.seconds < one.seconds / 6
    text = plan.to_text()
    assert "assumed: 30% of peak" in text
    assert "989 TFLOP/s (data sheet" in text
    assert "this machine: unknown" in text
    assert "not looked at" in text


def test_other_methods_are_counted() -> None:
    rows = {row.kind: row for row in plan_study(load_study("sharpt")).rows}
    # SharPT, two ablations and a control; two of the four learn nothing from the sources.
    assert (rows["latent_space"].cells, rows["latent_space"].steps) == (4 * 3, 2 * 3 * 80_000)
    assert (rows["latent_transfer"].cells, rows["latent_transfer"].steps) == (4 * 30, 4 * 30 * 100_000)
    assert rows["model_tuning"].cells == 30
    assert rows["model_tuning"].train_positions == 1.5 * rows["model_tuning"].steps * 2**16


def test_t5_sizes() -> None:
    # Published sizes of T5 1.1: 77M, 248M, 783M, 2.85B, 11.1B.
    for size, millions in (("small", 77), ("base", 248), ("large", 783), ("xl", 2850), ("xxl", 11135)):
        assert t5_shape(size).stored / 1e6 == pytest.approx(millions, rel=0.01)
    assert shape_of("google/t5-base-lm-adapt") == t5_shape("base")
    assert shape_of("builtin") is None


def test_what_is_finished_and_how_fast_it_went(tmp_path: Path) -> None:
    study = made()
    facts = AnalyticRunner().facts(study)
    before = plan_study(study, tmp_path, facts=facts, papers=False, parameters=1_000_000, width=64)
    assert before.steps_left == 4 * 12 + 4 * 8 + 8 * 8
    assert before.estimates[0].seconds is None
    run(study, tmp_path)
    after = plan_study(study, tmp_path, facts=facts, papers=False)
    assert (after.steps_left, {row.kind: row.done for row in after.rows}["transfer"]) == (0, 8)
    more = made(targets=["apple", "berry", "cherry"])
    wider = plan_study(more, tmp_path, facts=AnalyticRunner().facts(more), papers=False)
    assert wider.estimates[0].basis == "rate of this ledger's cells"
    assert wider.estimates[0].seconds is not None
    assert wider.steps_left == 2 * 8 + 4 * 8


def test_a_given_rate_and_lengths() -> None:
    study = made()
    one = plan_study(study, rate=1000.0, mean_input_tokens=28.0, papers=False)
    two = plan_study(study, rate=2000.0, mean_input_tokens=28.0, papers=False)
    assert one.estimates[0].seconds == pytest.approx(2 * (two.estimates[0].seconds or 0))
    source = next(row for row in one.rows if row.kind == "source")
    assert source.train_positions == 48 * 32 * (100 + 28 + 4)
    for wrong in ({"rate": 0.0}, {"utilisation": 1.5}):
        with pytest.raises(UsageError):
            plan_study(study, **wrong)  # type: ignore[arg-type]


def test_clock() -> None:
    assert [clock(s) for s in (3, 125, 3700, 90_000)] == ["3 s", "2 min", "1 h 1 min", "1 d 1 h"]
