"""A replayed race is the race: the same runs dropped at the same steps for the same cost."""

import numpy as np
import pytest
import torch
from tests.models import tiny_backbone

from softprompt.methods.spot.race import KEEP, halving, race_rungs
from softprompt.methods.spot.settings import TransferSettings
from softprompt.prompts.init import InitSettings, initial_prompt
from softprompt.prompts.stack import PromptStack
from softprompt.study.records import Point, Results, RunScore
from softprompt.study.replay import replay_race, replay_races
from softprompt.study.spending import curve_of
from softprompt.tasks.catalog import load_task
from softprompt.training.data import task_data
from softprompt.training.loop import Looks, train_prompts
from softprompt.training.recipes import recipe

STEPS, FIELD = 9, 9


def test_the_replay_is_the_race() -> None:
    backbone = tiny_backbone("t5")
    settings = recipe(
        "quick", steps=STEPS, batch_size=4, prompt_length=4, max_input_tokens=24, warmup_steps=0, eval_every=1,
        embedding_step=0, learning_rate=0.3,
    )  # fmt: skip
    rungs = race_rungs(STEPS, FIELD, KEEP)
    data = task_data(backbone, load_task("gen_sentiment_hotel"), settings, train_rows=32, validation_rows=24)
    names = [f"run-{i}" for i in range(FIELD)]
    runs = [data.run(name, 1, select_rows=np.arange(12)) for name in names]
    prompts = torch.stack([initial_prompt(backbone, InitSettings(), 4, i) for i in range(FIELD)])
    raced = train_prompts(
        backbone, PromptStack(prompts, tuned=True), runs, settings.having(eval_every=STEPS),
        leave=halving(dict.fromkeys(names, "x"), KEEP, rungs), looks=Looks(at=rungs),
    )  # fmt: skip
    alone = train_prompts(backbone, PromptStack(prompts, tuned=True), runs, settings)
    candidates = [
        RunScore(
            target="x", seed=i, score=result.scores["score"], steps=result.steps, curve=curve_of(result.plain()),
            train_tokens=2.0 * result.tokens, validation_tokens=1.0,
        )
        for i, result in enumerate(alone)
    ]  # fmt: skip
    race = replay_race(candidates)
    assert race is not None
    assert [(rung.step, rung.before, rung.after) for rung in race.rungs] == [
        (1, 9, 2), (3, 2, 1), (9, 1, 1)
    ]  # fmt: skip
    assert (race.wanted, race.held, race.candidates) == (2, 2, FIELD)
    survivor = next(i for i, result in enumerate(raced) if result.status == "done")
    assert race.winner.seed == survivor
    assert race.cost.steps == sum(result.steps for result in raced)
    seen = sum(len(result.curve) for result in raced)
    trained = sum(2 * r.tokens for r in alone) * race.cost.steps / (STEPS * FIELD)
    # Rows differ in length from step to step, so that a share of a run's tokens is near, not equal, to those of its start.
    assert race.cost.tokens == pytest.approx(trained + seen / STEPS, rel=0.1)
    assert race.cost.tokens == pytest.approx(sum(2 * r.tokens for r in raced) + seen / STEPS, rel=0.1)


def run(seed: int, scores: dict[int, float], steps: int = 100, source: str = "s") -> RunScore:
    curve = tuple(Point(step=step, score=score, loss=1.0) for step, score in scores.items())
    return RunScore(
        target="x", seed=seed, score=scores[max(scores)], source=(source, seed), steps=steps, curve=curve, train_tokens=1000,
        validation_tokens=100, seconds=11,
    )  # fmt: skip


def test_curves_that_are_too_coarse_hold_fewer_rungs() -> None:
    # Rungs at 33, 66 and 99; with validations at 50 and 100 there is one at each.
    candidates = [run(i, {50: 50.0 + i, 100: 60.0 - i}) for i in range(9)]
    race = replay_race(candidates, 0.34, (33, 66, 99))
    assert race is not None
    assert [(rung.step, rung.before, rung.after) for rung in race.rungs] == [(50, 9, 3), (100, 3, 1)]
    assert race.wanted == 2
    assert race.winner.seed == 8  # 58 at its first validation; the best so far counts
    assert race.cost.steps == 6 * 50 + 3 * 100
    assert race.cost.tokens == 6 * (500 + 50) + 3 * 1100
    late = replay_race(candidates)  # the race itself would have dropped at 9 and 30
    assert late is not None
    assert [(rung.step, rung.before, rung.after) for rung in late.rungs] == [(100, 9, 2)]
    once = replay_race([run(i, {100: 50.0 + i}) for i in range(9)])
    assert once is not None
    assert (once.cost.steps, once.held, once.winner.seed) == (900, 1, 8)


def test_a_run_that_stopped_early_keeps_what_it_had() -> None:
    race = replay_race([run(0, {33: 90.0}, steps=33), run(1, {33: 1.0, 66: 2.0, 100: 3.0})])
    assert race is not None
    assert race.winner.seed == 0
    assert replay_race([RunScore(target="x", seed=0, score=1.0)]) is None


def test_keep_is_the_default_of_the_race() -> None:
    from softprompt.training.recipes import recipe as made

    assert TransferSettings(train=made("quick")).race_keep == KEEP


def test_an_unfinished_target_has_no_race_yet() -> None:
    moved = [run(0, {50: 60.0, 100: 70.0}, source="a"), run(0, {50: 50.0, 100: 50.0}, source="b")]
    scratch = RunScore(
        target="x", seed=0, score=40.0, steps=100, curve=(Point(step=100, score=40.0, loss=1.0),), train_tokens=1,
        validation_tokens=1,
    )  # fmt: skip
    whole = Results(sources=("a", "b"), targets=("x",), seeds=(0,), runs=(scratch, *moved))
    part = Results(sources=("a", "b"), targets=("x",), seeds=(0,), runs=(scratch, moved[0]))
    (race,) = replay_races(whole)
    assert race is not None
    assert race.candidates == 3  # one from scratch races along
    assert race.winner.source == ("a", 0)
    assert replay_races(part) == [None]
