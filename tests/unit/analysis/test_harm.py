"""Comparisons by rows: harm with and without the guard, and the gold answers they need."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support.tuned_study import backbone, finished

from softprompt.analysis.answers import Answers, RunId, answers_of, tokenised_form
from softprompt.analysis.harm import BLIND, by_rows, harm_table, target_table
from softprompt.analysis.methods import Methods
from softprompt.analysis.read import collect
from softprompt.analysis.records import Results, RunScore
from softprompt.inference.evaluate import halves
from softprompt.study.run import facts_of, open_study
from softprompt.study.settings import RowLimits
from softprompt.tasks.catalog import load_task

__all__ = ["backbone", "finished"]  # fixtures

ROWS = 400
TARGET = "gen_sentiment_hotel"


def answers(right: Sequence[bool], gold: Sequence[str], labels: Sequence[str]) -> list[str]:
    other = {labels[0]: labels[1], labels[1]: labels[0]}
    return [text if good else other[text] for text, good in zip(gold, right, strict=True)]


def study(shares: dict[str, tuple[float, float]]) -> tuple[Results, dict[str, Answers]]:
    """Source prompts that are right on these shares of half 0 and of half 1; scratch is right on 70 %."""
    task = load_task(TARGET)
    examples = task.split("validation", max_rows=ROWS).examples
    gold = [example.targets for example in examples]
    first, second = halves(len(examples), 0)
    random = np.random.default_rng(0)
    given: dict[RunId, list[str]] = {}
    runs = []
    for name, (one, two) in {"scratch": (0.7, 0.7), **shares}.items():
        right = np.zeros(len(examples), dtype=bool)
        right[first], right[second] = random.random(len(first)) < one, random.random(len(second)) < two
        source = None if name == "scratch" else (name, 0)
        given[TARGET, source, 0] = answers([bool(r) for r in right], gold, task.labels or ())
        pair = 100.0 * float(right[first].mean()), 100.0 * float(right[second].mean())
        runs.append(RunScore(target=TARGET, seed=0, score=pair[1], source=source, halves=pair))
    results = Results(sources=tuple(shares), targets=(TARGET,), seeds=(0,), runs=tuple(runs), report_half=1)
    return results, {TARGET: Answers(task=task, examples=examples, canonical=str, answers=given)}


def test_the_guard_holds_back_what_harms_and_lets_through_what_helps() -> None:
    results, gold = study({"good": (0.95, 0.95), "bad": (0.5, 0.4), "flattered": (0.99, 0.45)})
    found = by_rows(results, Methods.of(results), gold, {})
    blind = found.harm(BLIND)
    assert blind is not None
    assert (blind.delivered, blind.worse, blind.better) == (3, 2.0, 1.0)
    assert (blind.kept, blind.kept_worse) == (1.0, 0.0)
    # The one that only looks best on half 0 is what a search delivers; the guard does not believe it.
    oracle = found.harm("oracle")
    assert oracle is not None
    assert (oracle.delivered, oracle.worse, oracle.kept) == (1, 1.0, 0.0)
    (test,) = found.gains
    assert test.source == "flattered, seed 0"
    assert not test.beyond_noise
    assert "66.7%" in harm_table(found).to_text()


def test_a_better_prompt_beats_scratch_beyond_noise() -> None:
    results, gold = study({"good": (0.95, 0.95), "same": (0.7, 0.7)})
    found = by_rows(results, Methods.of(results), gold, {"other": "its data is not on this machine"})
    (test,) = found.gains
    assert (test.source, test.beyond_noise, test.scratch_runs) == ("good, seed 0", True, 1)
    assert 0 < test.points.low < test.points.mean < test.points.high
    assert test.p == test.p_holm < 0.01
    for table in (harm_table(found), target_table(found)):
        assert "other is left out: its data is not on this machine." in table.notes


def test_an_unfinished_target_is_not_tested() -> None:
    results, gold = study({"good": (0.95, 0.95)})
    part = replace(results, sources=("good", "open"))
    found = by_rows(part, Methods.of(part), gold, {})
    assert found.gains == ()
    assert [harm.name for harm in found.harms] == ["every source prompt, blindly"]


def test_gold_answers_of_a_real_ledger(finished: Path) -> None:
    opened, ledger, noted = open_study(finished)
    facts = facts_of(opened, noted)
    gold, why = answers_of(opened, ledger, facts)
    assert why == {}
    results = collect(opened, ledger, facts)
    target = opened.targets[0]
    assert len(gold[target].answers) == len(results.runs)
    for run in results.runs:
        second = [int(r) for r in halves(len(gold[target].examples), 0)[1]]
        assert run.halves is not None
        assert gold[target].score((run.target, run.source, run.seed), second) == pytest.approx(run.halves[1])
    fewer = replace(opened, validation_rows=8)  # as if the data had changed since
    assert answers_of(fewer, ledger, facts)[1] == {
        target: "the data on this machine is not what the study was run with"
    }
    own = RowLimits(validation=facts.data[target].validation_rows)  # a target's own limit goes before the study's
    assert answers_of(replace(fewer, rows={target: own}), ledger, facts)[1] == {}


def test_texts_are_compared_as_the_tokenizer_leaves_them() -> None:
    form = tokenised_form([["not _ entailment", "Entailment", "not _ entailment"], ["not_ entailment"]])
    assert form("not_entailment") == "not _ entailment"
    assert form("entailment") == "Entailment"
    assert form("never answered") == "never answered"
