"""From a study to a calibration in a library, and from there to predictions that stand beside what came out."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.models import tiny_backbone
from tests.unit.study.test_run import RUNNER, made
from tests.unit.training.test_loop import WordTask, examples

from softprompt.api import calibrate
from softprompt.errors import CorruptArtifactError, IncompatibleBackboneError, UsageError
from softprompt.library.beside import CALIBRATION
from softprompt.library.manifest import PromptRecord
from softprompt.library.released import find_released, released_library
from softprompt.library.search import search, similarity_spread
from softprompt.library.store import Library
from softprompt.methods.spot.calibration import (
    Calibration,
    calibration_for,
    find_calibration,
    keep_calibration,
)
from softprompt.methods.spot.expected import expected_gains, spread_of, untuned_losses, with_realised
from softprompt.methods.spot.gains import AVERAGE, LOSS, PER_TOKEN, SIZE, GainFit, GainModel
from softprompt.methods.spot.run import transfer_targets
from softprompt.methods.spot.settings import TransferSettings
from softprompt.methods.spot.written import write_report
from softprompt.study.calibrating import calibration_of
from softprompt.study.reading import collect, facts_of, open_study
from softprompt.study.run import run_study
from softprompt.tasks.encoded import encode_split
from softprompt.tasks.task import Split
from softprompt.training.data import TaskData
from softprompt.training.settings import TrainSettings

TARGETS = ["apple", "berry", "avocado", "banana", "apricot"]
TRAIN = TrainSettings(
    steps=4, batch_size=4, prompt_length=3, optimizer="adam", learning_rate=0.05, eval_every=2, embedding_step=2,
    max_target_tokens=4, dropout=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """A finished analytic study of 4 source prompts and 5 targets, on a backbone of fingerprint ``analytic``."""
    folder = tmp_path_factory.mktemp("ledger")
    study = made(sources=["alpha", "beta", "alphabet", "b"], targets=TARGETS, seeds=[0], scratch_seeds=2)
    assert run_study(study, folder, runner=RUNNER).complete
    return folder


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("t5", width=16, layers=1)


def a_library(place, fingerprint="analytic", width=8, tasks=("alpha", "beta", "gamma"), rows=(10, 1000, None)):
    library = Library(place)
    for i, (task, count) in enumerate(zip(tasks, rows, strict=True)):
        prompt = torch.randn(3, width, generator=torch.Generator().manual_seed(i))
        library.add(
            PromptRecord(
                task=task,
                prompt=prompt,
                task_embedding=prompt,
                backbone_name="some",
                backbone_fingerprint=fingerprint,
                backbone_kind="t5",
                recipe={} if count is None else {"train_rows": count},
            )
        )
    return library


def fit(*weights, intercept=1.0, width=4.0):
    return GainFit(
        intercept=intercept, weights=weights, half_widths={"0.5": 1.0, "0.8": width, "0.9": None},
        coverage={"0.5": 0.5, "0.8": 0.75, "0.9": 0.75}, error=1.0, error_of_mean=2.0, targets=4, pairs=16,
    )  # fmt: skip


def calibration(fingerprint="analytic", **changes):
    free = GainModel(features=(PER_TOKEN, SIZE), points=fit(2.0, -1.0), relative=fit(4.0, -2.0, width=9.0))
    values = {
        "backbone_name": "some", "backbone_fingerprint": fingerprint, "study": "tiny", "protocol": "halves",
        "sources": ("a",), "targets": ("b",), "seeds": (1,), "embedding_step": 2, "recipe": {"steps": 4},
        "data": {}, "models": (free,), **changes,
    }  # fmt: skip
    return Calibration(**values)


def test_a_study_becomes_a_calibration_in_the_library(ledger, tmp_path):
    library = a_library(tmp_path / "library")
    made_ = calibrate(library, ledger, command="softprompt library calibrate ...")
    assert find_calibration(Library(tmp_path / "library")) == made_
    assert library.names() == ["alpha@0", "beta@0", "gamma@0"]
    assert library.verify() == {}
    assert (made_.study, made_.backbone_fingerprint, made_.targets) == ("tiny", "analytic", tuple(TARGETS))
    assert made_.data["apple"] == {"train": "train-apple", "validation": "val-apple"}
    assert made_.recipe["steps"] == 8
    (model,) = made_.models
    assert model.features == (PER_TOKEN, AVERAGE, SIZE)
    # Gains are over the mean of all runs from scratch, further seeds included.
    study, cells, noted = open_study(ledger)
    results = collect(study, cells, facts_of(study, noted))
    gains = [
        run.score - np.mean([scratch.score for scratch in results.scratch(run.target)])
        for run in results.runs
        if run.source is not None
    ]
    assert len(gains) == model.points.pairs == 20
    assert model.points.intercept == pytest.approx(np.mean(gains))
    assert all(len(results.scratch(target)) == 3 for target in TARGETS)


def test_an_unfinished_pair_is_left_out(ledger, tmp_path):
    part = tmp_path / "part"
    shutil.copytree(ledger, part)
    shutil.rmtree(next(path for path in sorted((part / "cells" / "transfer").iterdir()) if path.is_dir()))
    found = calibrate(a_library(tmp_path / "library"), part)
    assert found.models[0].points.pairs == 19


def test_losses_of_the_study_make_a_second_fit(ledger):
    study, cells, noted = open_study(ledger)
    facts = facts_of(study, noted)
    results = collect(study, cells, facts)
    gained = {(run.source, run.target): run.score for run in results.runs if run.source is not None}
    # A predictor that knows each score; higher is better, as for all of them.
    losses = {p: {t: gained[p, t] / 100 for t in results.targets} for p in results.prompts}
    known = replace(results, predictors={**results.predictors, "zero-shot-loss": losses, "few-step-loss": losses})
    free, full = calibration_of(study, facts, known).models
    assert free.features == (PER_TOKEN, AVERAGE, SIZE)
    assert full.features == (PER_TOKEN, AVERAGE, SIZE, LOSS)
    assert full.points.weights[-1] > 0.0
    assert full.points.error < free.points.error


def test_a_study_of_another_backbone_or_with_few_targets_is_refused(ledger, tmp_path):
    with pytest.raises(IncompatibleBackboneError, match="holds no prompt"):
        calibrate(a_library(tmp_path / "other", fingerprint="f" * 64), ledger)
    small = tmp_path / "small"
    assert run_study(made(), small, runner=RUNNER).complete
    with pytest.raises(UsageError, match="at least 4 targets"):
        calibrate(a_library(tmp_path / "library"), small)


@pytest.mark.parametrize("place", ["local", "memory"])
def test_what_is_kept_is_read_again_and_checked(place, tmp_path):
    library = a_library(tmp_path / "x" if place == "local" else f"memory://{tmp_path.name}")
    assert find_calibration(library) is None
    kept = calibration()
    keep_calibration(library, kept)
    assert find_calibration(library) == kept
    assert len(library.names()) == 3
    data = kept.to_bytes()
    library.folders.write_beside(CALIBRATION, data.replace(b'"pairs": 16', b'"pairs": 61'))
    with pytest.raises(CorruptArtifactError, match="digest"):
        find_calibration(library)
    for wrong in (b"[]", b'{"format": "softprompt-calibration/9"}', data[: len(data) // 2]):
        library.folders.write_beside(CALIBRATION, wrong)
        with pytest.raises(CorruptArtifactError):
            find_calibration(library)


def test_a_calibration_belongs_to_one_backbone(tmp_path, backbone):
    library = a_library(tmp_path / "library")
    assert calibration_for(library, backbone) is None
    keep_calibration(library, calibration())
    with pytest.raises(IncompatibleBackboneError, match="make one from a study on that backbone") as caught:
        calibration_for(library, backbone)
    assert caught.value.exit_code == 4
    keep_calibration(library, calibration(backbone.fingerprint))
    assert calibration_for(library, backbone) is not None


def test_the_released_library_brings_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))
    keep_calibration(a_library(tmp_path / "released"), calibration())
    assert find_calibration(released_library(tmp_path / "released")) == calibration()
    (tmp_path / "alone").mkdir()
    keep_calibration(Library(tmp_path / "alone"), calibration())
    assert find_released(tmp_path / "alone") is None  # a calibration is no prompt


def test_predictions_by_hand(tmp_path):
    library = a_library(tmp_path / "library")
    target = [torch.randn(4, 8, generator=torch.Generator().manual_seed(9)) for _ in range(2)]
    matches = search(library, target, top_k=3)
    spread = spread_of(matches)
    found = expected_gains(calibration(), matches, spread)
    similarity = np.array([m.per_token for m in matches])
    sizes = {"alpha@0": -1.0, "beta@0": 1.0, "gamma@0": 0.0}  # of two known sizes; the unknown one counts as their mean
    for i, (gain, match) in enumerate(zip(found, matches, strict=True)):
        z = (similarity[i] - similarity.mean()) / similarity.std()
        assert gain.points == pytest.approx(1.0 + 2.0 * z - sizes[match.name])
        assert (gain.low, gain.high) == pytest.approx((gain.points - 4.0, gain.points + 4.0))
        assert gain.relative == pytest.approx(1.0 + 4.0 * z - 2.0 * sizes[match.name])
        assert gain.relative_high == pytest.approx(gain.relative + 9.0)
        assert (gain.realised, gain.held) == (None, None)
    # The index alone gives the same spread, and the first match is predicted alike when it is shown alone.
    again = similarity_spread(library, target)
    assert again.count == 3
    for name in ("per_token", "average", "log_rows"):
        assert getattr(again, name) == pytest.approx(getattr(spread, name), abs=1e-5)
    (first,) = expected_gains(calibration(), search(library, target, top_k=1), again)
    assert first.points == pytest.approx(found[0].points, abs=1e-3)


def test_losses_sharpen_where_they_are_known(tmp_path):
    library = a_library(tmp_path / "library")
    matches = search(library, [torch.ones(4, 8)], top_k=3)
    full = GainModel(features=(PER_TOKEN, SIZE, LOSS), points=fit(0.0, 0.0, 3.0, width=1.0), relative=None)
    both = calibration(models=(*calibration().models, full))
    assert both.wants_losses
    assert not calibration().wants_losses
    free = expected_gains(both, matches, spread_of(matches))
    assert free[0].features == (PER_TOKEN, SIZE)
    losses = {match.name: float(i) for i, match in enumerate(matches)}  # the most similar one has the lowest loss
    found = expected_gains(both, matches, spread_of(matches), losses)
    step = 3.0 / math.sqrt(2.0 / 3.0)
    assert [g.points for g in found] == pytest.approx([1.0 + step, 1.0, 1.0 - step])
    assert found[0].relative is None
    with pytest.raises(UsageError, match="predicted from"):
        calibration(models=(full,)).model({PER_TOKEN, SIZE})


def test_realised_gains_stand_beside_the_predicted_ones(tmp_path):
    library = a_library(tmp_path / "library")
    matches = search(library, [torch.ones(4, 8)], top_k=3)
    expected = [replace(gain, points=0.0, low=-1.0, high=1.0) for gain in expected_gains(
        calibration(), matches, spread_of(matches))]  # fmt: skip
    names = [gain.name for gain in expected]
    found = with_realised(expected, {names[0]: [60.5], names[1]: [61.0, 63.0]}, [59.0, 61.0])
    assert [gain.realised for gain in found] == [0.5, 2.0, None]
    assert [gain.held for gain in found] == [True, False, None]
    assert with_realised(expected, {names[0]: [60.5]}, []) == expected


@pytest.fixture(scope="module")
def data(backbone):
    def encoded(name, count, seed):
        split = Split.of(name, examples(count, seed))
        return encode_split(split, backbone, max_input_tokens=None, max_target_tokens=None)

    return TaskData(task=WordTask(), train=encoded("train", 30, 1), validation=encoded("validation", 24, 2))


def test_a_transfer_tells_expects_and_reports(tmp_path, backbone, data):
    library = a_library(tmp_path / "library", backbone.fingerprint, backbone.hidden_size)
    full = GainModel(features=(PER_TOKEN, SIZE, LOSS), points=fit(1.0, 0.0, 1.0, width=1.0), relative=None)
    known = calibration(backbone.fingerprint, models=(*calibration().models, full))
    order = []
    settings = TransferSettings(train=TRAIN, strategies=("best_of_top_k",), k=2, embedding_runs=1)
    (report,) = transfer_targets(
        backbone, library, [data], settings, calibration=known,
        observe=lambda phase, runs: order.append(phase), expect=lambda target, gains: order.append((target, len(gains))),
    )  # fmt: skip
    assert order == ["first", ("word", 3), "transfer"]
    tried = [gain for gain in report.expected if gain.realised is not None]
    assert [gain.name for gain in tried] == [row["name"] for row in report.ranking[:2]]
    assert report.expected[0].features == (PER_TOKEN, SIZE, LOSS)
    losses, cost = untuned_losses(backbone, library, library.names(), data.train)
    assert report.facts["expectation_cost"] == cost > 0
    assert set(losses) == set(library.names())
    chosen = report.outcome("best_of_top_k")
    source = chosen.sources[0][0]
    realised = next(gain.realised for gain in tried if gain.name == source)
    assert realised <= chosen.score  # over the mean from scratch, which is not negative
    page = write_report(tmp_path / "run", report, TRAIN, "softprompt transfer --task word", ["a remark."])
    text = page.read_text()
    assert "softprompt transfer --task word" in text
    assert all(
        name in text
        for name in (report.verdict, source, "## Predicted and realised gain", "learning_rate 0.05", "- a remark.")
    )
    facts = json.loads((Path(page).parent / "report-word.json").read_text())
    assert facts["expected"][0]["points"] == report.expected[0].points
    assert facts["outcomes"][0]["step"] in (0, 2, 4)
    assert facts["settings"]["steps"] == 4
    with pytest.raises(IncompatibleBackboneError):
        transfer_targets(backbone, library, [data], settings, calibration=calibration())


def test_a_strategy_that_cannot_be_tried_is_named(tmp_path, backbone, data):
    """Source prompts that point away from the target: weighted_average has nothing to average."""
    library = a_library(tmp_path / "library", backbone.fingerprint, backbone.hidden_size, tasks=("alpha",), rows=(5,))
    settings = TransferSettings(train=TRAIN, strategies=("weighted_average",), embedding_runs=1)
    (report,) = transfer_targets(backbone, library, [data], settings)
    similarity = report.ranking[0]["per_token"]
    prompt = library.get("alpha@0").prompt()
    mirrored = Library(tmp_path / "mirrored")
    mirrored.add(
        PromptRecord(
            task="alpha", prompt=prompt, task_embedding=-prompt * math.copysign(1.0, similarity), backbone_name="some",
            backbone_fingerprint=backbone.fingerprint, backbone_kind="t5",
        )
    )  # fmt: skip
    (report,) = transfer_targets(backbone, mirrored, [data], settings)
    assert report.ranking[0]["per_token"] < 0.0
    assert "positive similarity" in report.refused["weighted_average"]
    assert [o.strategy for o in report.outcomes] == ["scratch"]
    assert "positive similarity" in write_report(tmp_path / "run", report, TRAIN, "again").read_text()


def test_settings_that_differ_from_the_study_are_named():
    known = calibration(recipe={"steps": 4, "learning_rate": 0.05, "batch_size": 4})
    assert known.differences(TRAIN) == []
    assert known.differences(TRAIN.having(steps=40)) == ["steps 40, not 4"]
    assert known.remarks("unseen", TRAIN) == []
    seen, other = known.remarks("b", TRAIN.having(steps=40))
    assert "not of an unseen task" in seen
    assert "steps 40, not 4" in other
