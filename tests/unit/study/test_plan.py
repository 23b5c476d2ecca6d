"""Plans: counts by hand, what is finished, and where every assumed number is named."""

import json
import os
from pathlib import Path

import pytest
from tests.support.analytic import AnalyticRunner
from tests.support.models import save_tiny
from tests.support.small_study import made, run

from softprompt.backbones.shapes import T5_SIZES, shape_of
from softprompt.errors import UsageError
from softprompt.study.look import TaskLook
from softprompt.study.plan import plan_study
from softprompt.study.run import clock
from softprompt.study.settings import Study, load_study, study_of
from softprompt.study.survey import survey
from softprompt.study.timing import Timing


def test_prompt_steps_of_the_paper() -> None:
    plan = plan_study(load_study("paper"))
    rows = {row.kind: row for row in plan.rows}
    assert (rows["source"].cells, rows["source"].steps) == (48, 48 * 262_144)
    assert (rows["transfer"].cells, rows["transfer"].steps) == (480, 480 * 100_000)
    assert rows["evaluation"].steps == 0
    # Footnote 13's budgets are checkpoints of the same runs: five embeddings of 26 tasks and 3 seeds for nothing.
    assert (rows["embedding"].cells, rows["embedding"].steps) == (5 * 78, 0)
    one, eight = plan.estimates[1:]
    assert one.seconds is not None
    assert eight.seconds is not None
    assert one.seconds / 9 < eight.seconds < one.seconds / 6
    text = plan.to_text()
    assert "one H100: " in text
    assert "assumed: 30% of peak" in text
    assert "989 TFLOP/s (dense bfloat16)" in text
    assert "this machine: unknown" in text


def test_the_estimate_is_of_this_study_alone() -> None:
    paper, day = plan_study(load_study("paper")), plan_study(load_study("spot-day"))
    assert "paper" not in day.to_text()
    assert day.estimates[1].seconds < paper.estimates[1].seconds / 20  # type: ignore[operator]
    assert len(plan_study(load_study("demo")).estimates) == 1  # a backbone whose size is not known: nothing is made up
    assert len(plan_study(load_study("demo"), parameters=5_000_000).estimates) == 3


def test_other_methods_are_counted() -> None:
    rows = {row.kind: row for row in plan_study(load_study("sharpt")).rows}
    # SharPT, two ablations and a control; two of the four learn nothing from the sources.
    assert (rows["latent_space"].cells, rows["latent_space"].steps) == (4 * 3, 2 * 3 * 80_000)
    assert (rows["latent_transfer"].cells, rows["latent_transfer"].steps) == (4 * 30, 4 * 30 * 100_000)
    assert rows["model_tuning"].cells == 30
    assert rows["model_tuning"].work.train == 1.5 * rows["model_tuning"].steps * 2**16


def test_t5_sizes() -> None:
    # Published sizes of T5 1.1: 77M, 248M, 783M, 2.85B, 11.1B.
    for size, millions in (("small", 77), ("base", 248), ("large", 783), ("xl", 2850), ("xxl", 11135)):
        assert T5_SIZES[f"t5-{size}"].parameters / 1e6 == pytest.approx(millions, rel=0.01)
    assert shape_of("google/t5-base-lm-adapt") == T5_SIZES["t5-base"]
    assert shape_of("builtin") is None


def test_what_is_finished_and_how_fast_it_went(tmp_path: Path) -> None:
    study = made()
    facts = AnalyticRunner().facts(study)
    before = plan_study(study, tmp_path, facts=facts, parameters=1_000_000)
    assert before.steps_left == 4 * 12 + 4 * 8 + 8 * 8
    assert before.estimates[0].seconds is None
    run(study, tmp_path)
    after = plan_study(study, tmp_path, facts=facts)
    assert (after.steps_left, {row.kind: row.done for row in after.rows}["transfer"]) == (0, 8)
    more = made(targets=["apple", "berry", "cherry"])
    wider = plan_study(more, tmp_path, facts=AnalyticRunner().facts(more))
    assert wider.estimates[0].basis == "rate of this ledger's cells"
    assert wider.estimates[0].seconds is not None
    assert wider.steps_left == 2 * 8 + 4 * 8


def looked(study: Study, inputs: float = 28.0, rows: int = 40) -> list[TaskLook]:
    return [
        TaskLook(task=name, train_rows=100, validation_rows=rows, input_tokens=inputs, target_tokens=4.0)
        for name in study.all_tasks
    ]


def test_a_given_rate_and_lengths() -> None:
    study = made()
    one, two = (plan_study(study, rate=rate, looks=looked(study)) for rate in (1000.0, 2000.0))
    assert one.estimates[0].seconds == pytest.approx(2 * (two.estimates[0].seconds or 0))
    source = next(row for row in one.rows if row.kind == "source")
    assert source.work.train == 48 * study.source.batch_size * (study.source.prompt_length + 28 + 4)
    # Every validation answers the task's rows, as many as eval_rows allows, and the best checkpoint all of them.
    looks = study.source.steps // study.source.eval_every
    assert study.source.eval_rows == 0  # all of them, as in the papers
    assert source.work.validation == 4 * (looks * 40 + 40) * (study.source.prompt_length + 28 + 4)
    for wrong in ({"rate": 0.0}, {"utilisation": 1.5}):
        with pytest.raises(UsageError):
            plan_study(study, **wrong)  # type: ignore[arg-type]


def test_measured_steps_make_the_estimate() -> None:
    study = made()
    timing = Timing(
        train_rate=500.0, eval_rate=2000.0, memory=3 * 2**30, seconds=30.0, steps=7, runs=4, tasks=("apple",)
    )
    plan = plan_study(study, looks=looked(study), timing=timing)
    train, validation = (sum(getattr(row.work, part) for row in plan.rows) for part in ("train", "validation"))
    assert plan.estimates[0].seconds == pytest.approx(train / 500 + validation / 2000)
    assert plan.estimates[0].memory == 3 * 2**30
    assert "30 s of its own steps" in plan.to_text()
    assert "7 steps of 4 prompts on apple" in plan.to_text()


def test_mixtures_are_as_long_as_their_tasks_by_rate() -> None:
    study = study_of({"name": "x", "sources": ["m"], "targets": ["c"], "seeds": [0], "mixtures": {"m": ["a", "b"]}})
    looks = [
        TaskLook(task="a", train_rows=300, validation_rows=9, input_tokens=10, target_tokens=0),
        TaskLook(task="b", train_rows=100, validation_rows=9, input_tokens=50, target_tokens=0),
    ]
    source = next(row for row in plan_study(study, looks=looks).rows if row.kind == "source")
    assert source.work.train == source.steps * 32 * (100 + 20)
    assert source.work.validation == 0  # the last checkpoint counts


def test_every_source_is_looked_at_and_what_is_missing_is_said(tmp_path: Path) -> None:
    backbone = save_tiny("t5", tmp_path / "model")
    (tmp_path / "data" / "cr").mkdir(parents=True)
    for split, count in (("train", 7), ("validation", 5)):
        rows = [{"text": f"good film {i}", "label": i % 2} for i in range(count)]
        (tmp_path / "data" / "cr" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = study_of(
        {"name": "x", "sources": ["gen_sentiment_film", "newsroom", "mnli"], "targets": ["cr"], "seeds": [0],
         "backbone": str(backbone), "dtype": "float32", "group": 2, "train_rows": 50,
         "source": {"recipe": "quick"}, "target": {"recipe": "quick", "prompt_length": 16}, "rows": {"cr": {"train": 6}}}
    )  # fmt: skip
    os.environ["SOFTPROMPT_DATA"] = str(tmp_path / "data")
    try:
        found = survey(study, "cpu", timing=0.01, facts=True)
    finally:
        del os.environ["SOFTPROMPT_DATA"]
    looks = {one.task: one for one in found.looks}
    assert (looks["cr"].train_rows, looks["cr"].validation_rows) == (6, 5)
    assert looks["cr"].input_tokens is not None
    assert (looks["gen_sentiment_film"].train_rows, looks["gen_sentiment_film"].problem) == (50, "")
    assert "lil.nlp.cornell.edu/newsroom" in looks["newsroom"].problem
    assert "nyu-mll/glue" in looks["mnli"].problem
    assert "task 'mnli'" in looks["mnli"].problem
    assert found.facts is None  # not all is there
    assert found.timing is not None
    assert (found.timing.runs, found.timing.tasks) == (2, ("cr",))
    plan = plan_study(study, **found.known())
    assert len(plan.problems) == 2
    assert plan.estimates[0].seconds is not None


def test_a_backbone_that_is_not_there_is_a_problem_and_no_error() -> None:
    study = study_of(
        {"name": "x", "sources": ["gen_sentiment_film"], "targets": ["gen_sentiment_hotel"], "backbone": "no/such"}
    )
    found = survey(study, "cpu", timing=1.0, facts=True)
    assert "backbone 'no/such'" in found.problems[0]
    assert (found.timing, found.facts, found.looks[0].input_tokens) == (None, None, None)


def test_clock() -> None:
    assert [clock(s) for s in (3, 125, 3700, 90_000)] == ["3 s", "2 min", "1 h 1 min", "1 d 1 h"]
