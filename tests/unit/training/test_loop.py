"""The loop: N together equal N apart, resume equals never having stopped, and runs end as they should."""

import os
import signal

import numpy as np
import pytest
import torch
from tests.support.models import tiny_backbone
from tests.support.words import SETTINGS, StopAt, WordTask, examples, prompts, runs_of, train

from softprompt import artifacts
from softprompt.errors import CorruptArtifactError, Interrupted, NonFiniteError, UsageError
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.encoded import encode_split
from softprompt.tasks.example import Split
from softprompt.training import base, loop
from softprompt.training.group import row_key
from softprompt.training.loop import train_prompts
from softprompt.training.runs import Run


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("t5")


@pytest.fixture(scope="module")
def splits(backbone):
    def encoded(name, count, seed):
        split = Split.of(name, examples(count, seed))
        return encode_split(split, backbone, max_input_tokens=None, max_target_tokens=None)

    return encoded("train", 40, 1), encoded("validation", 24, 2)


def test_only_prompts_change(backbone, splits):
    before, start = backbone.weights_digest(), prompts(backbone, 2)
    results = train(backbone, splits, [1, 2], start)
    assert backbone.weights_digest() == before
    for n, result in enumerate(results):
        assert result.status == "done"
        assert result.steps == 6
        assert not torch.equal(result.final["prompt"], start[n])
        assert [record["step"] for record in result.curve] == [2, 4, 6]
        assert result.embedding is not None
        assert result.tokens > 0


def test_together_equals_apart(backbone, splits):
    seeds, start = [1, 2, 3], prompts(backbone, 3)
    together = train(backbone, splits, seeds, start)
    for n, seed in enumerate(seeds):
        (alone,) = train(backbone, splits, [seed], start[n : n + 1])
        torch.testing.assert_close(alone.final["prompt"], together[n].final["prompt"], rtol=2e-3, atol=2e-4)
        torch.testing.assert_close(alone.embedding["prompt"], together[n].embedding["prompt"], rtol=2e-3, atol=2e-4)
        assert [r["score"] for r in alone.curve] == [r["score"] for r in together[n].curve]


def test_together_equals_apart_to_rounding_in_float64(splits):
    wide = tiny_backbone("t5", dtype=torch.float64)
    start = prompts(wide, 2)
    together = train(wide, splits, [1, 2], start)
    (alone,) = train(wide, splits, [2], start[1:])
    # Prompts and optimiser are float32 here too; what the backbone adds is gone.
    torch.testing.assert_close(alone.final["prompt"], together[1].final["prompt"], rtol=1e-5, atol=1e-6)


def test_a_seed_reproduces_its_run(backbone, splits):
    start = prompts(backbone, 1)
    (one,) = train(backbone, splits, [5], start)
    (other,) = train(backbone, splits, [5], start)
    (third,) = train(backbone, splits, [6], start)
    assert torch.equal(one.final["prompt"], other.final["prompt"])
    assert not torch.equal(one.final["prompt"], third.final["prompt"])


@pytest.mark.parametrize("stop_at", [1, 4])
def test_resume_is_bit_exact(backbone, splits, tmp_path, stop_at):
    seeds, start = [1, 2], prompts(backbone, 2)
    whole = train(backbone, splits, seeds, start)
    with pytest.raises(Interrupted, match="--resume"):
        train(backbone, splits, seeds, start, folder=tmp_path / "run", observer=StopAt(stop_at))
    resumed = train(backbone, splits, seeds, start, folder=tmp_path / "run", resume=True)
    for one, other in zip(whole, resumed, strict=True):
        assert torch.equal(one.final["prompt"], other.final["prompt"])
        assert torch.equal(one.best["prompt"], other.best["prompt"])
        assert torch.equal(one.embedding["prompt"], other.embedding["prompt"])
        assert one.curve == other.curve
        assert one.scores == other.scores
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2 * 3


def test_a_finished_folder_answers_without_training(backbone, splits, tmp_path):
    start = prompts(backbone, 1)
    (first,) = train(backbone, splits, [1], start, folder=tmp_path / "run")

    def never(progress):
        raise AssertionError("trained again")

    (again,) = train(backbone, splits, [1], start, folder=tmp_path / "run", resume=True, observer=never)
    assert torch.equal(first.best["prompt"], again.best["prompt"])
    assert first.plain() == again.plain()


def test_a_folder_holds_one_run(backbone, splits, tmp_path):
    start = prompts(backbone, 1)
    train(backbone, splits, [1], start, folder=tmp_path / "run")
    with pytest.raises(UsageError, match="already holds this run"):
        train(backbone, splits, [1], start, folder=tmp_path / "run")
    with pytest.raises(UsageError, match=r"learning_rate is 0\.05, asked for 0\.1"):
        train(backbone, splits, [1], start, SETTINGS.having(learning_rate=0.1), folder=tmp_path / "run", resume=True)


def test_stopping_without_a_folder_says_that_nothing_was_saved(backbone, splits):
    with pytest.raises(Interrupted, match="nothing was saved"):
        train(backbone, splits, [1], prompts(backbone, 1), observer=StopAt(1))


class NotFinite(PromptStack):
    """Breaks one run's prompt at its third use, as an exploding update would."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.steps = 0

    def after_step(self, step):
        if step == 3:
            with torch.no_grad():
                self.prompts_NPH[1] = float("nan")

    def keep(self, runs):
        kept = super().keep(runs)
        if len(list(runs)) == self.run_count:
            return NotFinite(kept.prompts_NPH, tuned=True)
        return kept


def test_a_run_that_explodes_leaves_and_the_others_go_on(backbone, splits):
    start = prompts(backbone, 3)
    results = train_prompts(backbone, NotFinite(start, tuned=True), runs_of(splits, [1, 2, 3]), SETTINGS)
    assert [r.status for r in results] == ["done", "non_finite", "done"]
    assert "word-2" in results[1].note
    assert "word/1/" in results[1].note  # the batch is named
    assert results[1].steps == 3
    assert torch.isfinite(results[1].best["prompt"]).all()  # its last good checkpoint, from step 2
    (alone,) = train(backbone, splits, [3], start[2:])
    torch.testing.assert_close(alone.final["prompt"], results[2].final["prompt"], rtol=2e-3, atol=2e-4)


def test_all_runs_exploding_is_an_error(backbone, splits):
    start = torch.full((1, 3, backbone.hidden_size), float("nan"))
    with pytest.raises(NonFiniteError, match="learning rate"):
        train(backbone, splits, [1], start)


def test_early_stop_and_own_step_counts(backbone, splits):
    train_split, validation = splits
    base = {"train": (train_split,), "task": WordTask(), "validation": validation}
    runs = [
        Run(name="short", seed=1, steps=3, validated=False, **base),
        Run(name="long", seed=2, **base),
    ]
    settings = SETTINGS.having(steps=40, patience=2, learning_rate=1e-9, optimizer="adam", eval_every=2)
    results = train_prompts(backbone, PromptStack(prompts(backbone, 2), tuned=True), runs, settings)
    assert (results[0].status, results[0].steps, results[0].curve) == ("done", 3, [])
    assert results[0].embedding is not None
    assert (results[1].status, results[1].steps) == ("stopped_early", 6)  # best at 2, then two without improvement


def test_leave_drops_the_named_runs(backbone, splits):
    def leave(step, active):
        return ["word-1"] if step == 2 else []

    results = train(backbone, splits, [1, 2], prompts(backbone, 2), leave=leave)
    assert [(r.status, r.steps) for r in results] == [("dropped", 2), ("done", 6)]


def test_a_look_ranks_and_chooses_no_checkpoint(backbone, splits, tmp_path):
    seen = []

    def leave(step, active):
        seen.append((step, [len(r.curve) for r in active]))
        return ["word-1"] if step == 3 else []

    start = prompts(backbone, 2)
    looks = loop.Looks(at=(1, 3, 4), rows=5)
    settings = SETTINGS.having(patience=3, learning_rate=1e-9, dropout=0.0)  # nothing improves on step 2
    results = train(backbone, splits, [1, 2], start, settings, leave=leave, looks=looks)
    assert seen == [(1, [1, 1]), (2, [2, 2]), (3, [3, 3]), (4, [4]), (6, [5])]
    looked = {row["step"]: row.get("rows") for row in results[1].curve}
    assert looked == {1: 5, 2: None, 3: 5, 4: None, 6: None}
    (alone,) = train(backbone, splits, [2], start[1:], settings)
    whole = [row["score"] for row in results[1].curve if "rows" not in row]
    assert whole == [row["score"] for row in alone.curve]
    # With looks among them, three validations were without improvement.
    assert (results[1].best_step, results[1].status) == (2, "done")
    # A dropped run keeps its best checkpoint, and nobody pays for measuring it.
    assert (results[0].status, results[0].best_step, results[0].scores) == ("dropped", 2, {})
    # Looks are part of what a run directory holds, and only where there are any.
    folder = tmp_path / "run"
    train(backbone, splits, [1], start[:1], folder=folder)
    assert "looks" not in artifacts.read_json(folder / "run.json")
    with pytest.raises(UsageError, match="looks"):
        train(backbone, splits, [1], start[:1], folder=folder, resume=True, looks=looks)


def test_selecting_and_reporting_rows_are_kept_apart(backbone, splits):
    runs = runs_of(splits, [1], select_rows=np.arange(0, 10), report_rows=np.arange(10, 24))
    (result,) = train_prompts(backbone, PromptStack(prompts(backbone, 1), tuned=True), runs, SETTINGS)
    assert len(result.predictions) == 14
    assert (result.evidence["select_rows"], result.evidence["report_rows"]) == (10, 14)


def test_out_of_memory_halves_the_micro_batch_and_goes_on(backbone, splits, monkeypatch):
    start, real, seen = prompts(backbone, 1), backbone.example_losses, []
    settings = SETTINGS.having(micro_batch_tokens=400, max_input_tokens=20)
    (expected,) = train(backbone, splits, [1], start, settings)

    def small(batch, given, dropout=None):
        seen.append(batch.size)
        if batch.size > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return real(batch, given, dropout)

    monkeypatch.setattr(backbone, "example_losses", small)
    (found,) = train(backbone, splits, [1], start, settings)
    assert max(seen) > 2
    torch.testing.assert_close(found.final["prompt"], expected.final["prompt"], rtol=2e-3, atol=2e-4)


class OutOfMemoryOnce:
    """A backbone's losses, which run out of memory on their first call with more than two rows."""

    def __init__(self, real):
        self.real, self.failed = real, False

    def __call__(self, batch, given, dropout=None):
        if batch.size > 2 and not self.failed:
            self.failed = True
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return self.real(batch, given, dropout)


def test_the_size_it_was_halved_to_is_part_of_the_checkpoint(backbone, splits, tmp_path, monkeypatch):
    start, real = prompts(backbone, 1), backbone.example_losses
    settings = SETTINGS.having(micro_batch_tokens=400, max_input_tokens=20)
    monkeypatch.setattr(backbone, "example_losses", OutOfMemoryOnce(real))
    (whole,) = train(backbone, splits, [1], start, settings)
    assert whole.evidence["micro_batch_tokens"] == 200
    monkeypatch.setattr(backbone, "example_losses", OutOfMemoryOnce(real))
    with pytest.raises(Interrupted):
        train(backbone, splits, [1], start, settings, folder=tmp_path / "run", observer=StopAt(3))
    monkeypatch.setattr(backbone, "example_losses", real)  # there is memory now, and the grouping stays
    (resumed,) = train(backbone, splits, [1], start, settings, folder=tmp_path / "run", resume=True)
    assert resumed.evidence["micro_batch_tokens"] == 200
    assert torch.equal(resumed.final["prompt"], whole.final["prompt"])


def test_the_micro_batch_is_chosen_from_the_memory_at_hand(backbone, monkeypatch):
    for free, expected in ((None, 4096), (1 << 50, 4096), (2000 * 2 * backbone.activation_bytes, 2000), (0, 256)):
        monkeypatch.setattr(base, "free_memory_bytes", lambda device, free=free: free)
        assert base.default_micro_tokens(backbone) == expected


def test_results_tell_how_they_were_computed(backbone, splits):
    (result,) = train(backbone, splits, [1], prompts(backbone, 1))
    assert result.evidence["precision"] == "float32"
    assert result.evidence["peak_memory_bytes"] > 1 << 20


def test_row_keys_differ_in_every_part():
    keys = {row_key(*parts) for parts in [(1, 2, 3, 4), (2, 1, 3, 4), (1, 2, 4, 3), (1, 2, 3, 5), (0, 2, 3, 4)]}
    assert len(keys) == 5
    assert all(-(2**63) <= key < 2**63 for key in keys)


def test_stop_requests_restore_the_handlers():
    before = signal.getsignal(signal.SIGINT)
    with loop.stop_requests() as event:
        os.kill(os.getpid(), signal.SIGINT)
        assert event.wait(1)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_group_without_validation_can_be_resumed(backbone, splits, tmp_path):
    start = prompts(backbone, 1)

    def once(folder=None, **options):
        runs = runs_of(splits, [1], validated=False)
        return train_prompts(backbone, PromptStack(start, tuned=True), runs, SETTINGS, folder, **options)

    (whole,) = once()
    with pytest.raises(Interrupted):
        once(tmp_path / "run", observer=StopAt(4))
    (resumed,) = once(tmp_path / "run", resume=True)
    assert torch.equal(whole.final["prompt"], resumed.final["prompt"])
    assert (resumed.status, resumed.scores) == ("done", {})


def test_a_prompt_that_explodes_just_before_a_validation_is_no_best_checkpoint(backbone, splits, monkeypatch):
    """Its loss would show it only at the next step, and its answers score like any others."""
    start = prompts(backbone, 2)
    for at in (2, 6):  # a validation on the way, and the last

        def exploding(self, step, at=at):
            if step == at:
                with torch.no_grad():
                    self.prompts_NPH[1, 0, 0] = float("inf")

        monkeypatch.setattr(PromptStack, "after_step", exploding)
        settings = SETTINGS.having(embedding_step=0)
        results = train(backbone, splits, [1, 2], start, settings)
        assert [r.status for r in results] == ["done", "non_finite"]
        assert f"'word-2' got NaN or infinity from its update at step {at}, batch of rows word/1/" in results[1].note
        assert all(t.isfinite().all() for tensors in (results[1].best, results[0].best) for t in tensors.values())


def test_a_damaged_result_is_not_read(backbone, splits, tmp_path):
    train(backbone, splits, [1], prompts(backbone, 1), folder=tmp_path / "run")
    place = tmp_path / "run" / "results" / "word-1.json"
    text = place.read_text()
    place.write_text(text.replace('"steps": 6', '"steps": 7'))
    with pytest.raises(CorruptArtifactError, match="its own digest differs"):
        train(backbone, splits, [1], prompts(backbone, 1), folder=tmp_path / "run", resume=True)
    place.write_text("{}")
    with pytest.raises(CorruptArtifactError, match="does not hold the result of a run"):
        train(backbone, splits, [1], prompts(backbone, 1), folder=tmp_path / "run", resume=True)
