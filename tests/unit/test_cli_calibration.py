"""Predicted gains on the command line: made from a ledger, shown by search, told by transfer before and after."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.cli import call, make_tasks
from tests.models import save_tiny
from tests.unit.library.formats.test_hub import FakeHub
from tests.unit.study.test_run import RUNNER, made

from softprompt import artifacts
from softprompt.backbones.load import load_backbone
from softprompt.library.manifest import PromptRecord
from softprompt.library.store import Library
from softprompt.study.run import run_study

SMALL = ("--steps", "4", "--batch-size", "2", "--prompt-length", "2", "--set", "eval_every=2", "--set", "embedding_step=2",
         "--set", "eval_rows=4", "--dtype", "float32")  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny backbone, a task, a library on the backbone, and the ledger of an analytic study on it."""
    root = tmp_path_factory.mktemp("calibration")
    save_tiny("t5", root / "t5", width=16, layers=1)
    make_tasks(root / "data", "music")
    backbone = load_backbone(str(root / "t5"), dtype="float32")
    library = Library(root / "lib")
    for i, task in enumerate(("alpha", "beta", "gamma")):
        prompt = torch.randn(2, backbone.hidden_size, generator=torch.Generator().manual_seed(i))
        library.add(
            PromptRecord(
                task=task, prompt=prompt, task_embedding=prompt, backbone_name=backbone.name,
                backbone_fingerprint=backbone.fingerprint, backbone_kind=backbone.kind, recipe={"train_rows": 10**i},
            )
        )  # fmt: skip
    artifacts.write_tensors(root / "music.safetensors", {"1": torch.randn(2, 16), "2": torch.randn(2, 16)})
    study = made(targets=["apple", "berry", "avocado", "banana"], sources=["alpha", "beta", "bee"], seeds=[0])
    for name, fingerprint in (("ledger", backbone.fingerprint), ("elsewhere", "e" * 64)):
        summary = run_study(study, root / name, runner=RUNNER, runner_options={"backbone": fingerprint})
        assert summary.complete
    return root


@pytest.fixture(autouse=True)
def _here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


@pytest.fixture
def calibrated(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A copy of the library with a calibration."""
    copy = str(tmp_path / "calibrated")
    assert call(capsys, "library", "add", copy, "lib")[0] == 0
    code, _, err = call(capsys, "library", "calibrate", copy, "--study", "ledger")
    assert code == 0, err
    return copy


def test_calibrate_says_what_it_found_and_how_wrong_it_was(calibrated: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "library", "calibrate", calibrated, "--study", "ledger")
    assert code == 0
    assert all(
        words in out for words in ("similarity-per-token", "80 % interval", "targets left out", "alpha, beta, bee")
    )
    _, out, _ = call(capsys, "library", "calibrate", calibrated, "--study", "ledger", "--json")
    found = json.loads(out)["calibration"]
    assert found["models"][0]["points"]["targets"] == 4
    assert found["command"].startswith("softprompt")
    assert call(capsys, "library", "verify", calibrated)[0] == 0
    code, _, err = call(capsys, "library", "calibrate", calibrated, "--study", "elsewhere")
    assert code == 4
    assert "holds no prompt" in err


def test_search_predicts_where_it_can_and_says_how_where_it_cannot(
    place: Path, calibrated: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--embedding", "music.safetensors", "--top-k", "2")
    code, out, _ = call(capsys, "search", "--library", "lib", *asked)
    assert code == 0
    assert "predicted gain (80 %)" not in out
    assert "softprompt library calibrate lib --study LEDGER" in out
    code, out, _ = call(capsys, "search", "--library", calibrated, *asked)
    assert code == 0
    assert "predicted gain (80 %)" in out
    assert "of the mean" not in out
    assert "4 targets" in out
    _, out, _ = call(capsys, "search", "--library", calibrated, *asked, "--json")
    found = json.loads(out)
    assert len(found["expected"]) == 2
    assert all(gain["low"] < gain["points"] < gain["high"] for gain in found["expected"])
    _, out, _ = call(capsys, "search", "--library", calibrated, *asked[:2], "--json")
    whole = json.loads(out)
    assert [g["points"] for g in whole["expected"][:2]] == pytest.approx([g["points"] for g in found["expected"]])
    code, _, err = call(capsys, "search", "--library", calibrated, *asked, "--losses")
    assert code == 2
    assert "--task" in err


def test_search_measures_untuned_losses_where_asked(calibrated: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = (
        "search", "--library", calibrated, "--task", "music", "--data", "data", "--backbone", "t5", "--dtype", "float32",
        "--seeds", "1", "--prompt-length", "2", "--set", "batch_size=2", "--set", "embedding_step=2", "--losses",
    )  # fmt: skip
    code, out, err = call(capsys, *asked)
    assert code == 0, err
    assert "untuned loss" in out
    assert "needs more than one seed" in out
    _, out, _ = call(capsys, *asked, "--json")
    found = json.loads(out)
    assert set(found["losses"]) == {"alpha@0", "beta@0", "gamma@0"}
    assert all(loss > 0.0 for loss in found["losses"].values())
    assert len(found["expected"]) == 3


def test_search_says_how_sure_its_order_is(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "search", "--library", "lib", "--embedding", "music.safetensors", "--json")
    first, second, third = json.loads(out)["matches"]
    assert first["lead"] == pytest.approx(first["similarity"] - second["similarity"])
    assert first["lead_error"] > 0.0
    assert third["lead"] is None
    _, out, _ = call(capsys, "search", "--library", "lib", "--embedding", "music.safetensors", "--top-k", "1", "--json")
    (alone,) = json.loads(out)["matches"]
    assert alone["lead"] == pytest.approx(first["lead"])
    _, out, _ = call(capsys, "search", "--library", "lib", "--embedding", "music.safetensors")
    assert "is first by" in out
    assert "two standard errors" in out


def test_a_whole_library_is_copied_with_its_calibration(
    calibrated: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert call(capsys, "library", "add", str(whole), calibrated)[0] == 0
    assert (whole / "calibration.json").read_bytes() == (Path(calibrated) / "calibration.json").read_bytes()
    assert call(capsys, "library", "add", str(part), calibrated, "alpha@0")[0] == 0
    assert not (part / "calibration.json").exists()


def test_another_calibration_stays_unless_replaced(
    calibrated: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, file = str(tmp_path / "mine"), tmp_path / "mine" / "calibration.json"
    assert call(capsys, "library", "add", mine, "lib")[0] == 0
    monkeypatch.setattr("sys.argv", ["softprompt", "library", "calibrate", mine, "--study", "ledger"])
    assert call(capsys, "library", "calibrate", mine, "--study", "ledger")[0] == 0
    own, others = file.read_bytes(), (Path(calibrated) / "calibration.json").read_bytes()
    assert own != others, "each names the command that made it"
    assert call(capsys, "library", "rm", mine, "alpha@0", "beta@0", "gamma@0")[0] == 0
    code, out, _ = call(capsys, "library", "add", mine, calibrated)
    assert code == 0
    assert "another one, which stays as it is" in out
    assert file.read_bytes() == own
    code, out, _ = call(capsys, "library", "add", mine, calibrated, "--replace")
    assert code == 0
    assert "replaced the calibration" in out
    assert file.read_bytes() == others


def test_the_hub_takes_and_gives_it(
    calibrated: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = FakeHub(tmp_path / "hub")
    monkeypatch.setattr("softprompt.library.formats.hub._api", lambda api: hub)
    code, out, err = call(capsys, "library", "push", calibrated, "me/prompts")
    assert code == 0, err
    assert "with the library's calibration" in out
    new = tmp_path / "new"
    code, out, err = call(capsys, "library", "pull", str(new), "me/prompts")
    assert code == 0, err
    assert "added its calibration" in out
    assert (new / "calibration.json").read_bytes() == (Path(calibrated) / "calibration.json").read_bytes()
    _, out, _ = call(capsys, "library", "pull", str(new), "me/prompts", "--json")
    assert json.loads(out)["calibration"] == "same"
    assert "3 prompt(s) and a calibration" in call(capsys, "library", "verify", str(new))[1]


def test_a_damaged_calibration_ends_the_search(calibrated: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(calibrated) / "calibration.json"
    file.write_text(file.read_text().replace('"study": "tiny"', '"study": "other"'))
    code, out, err = call(capsys, "search", "--library", calibrated, "--embedding", "music.safetensors")
    assert (code, out) == (3, "")
    assert "calibration.json" in err
    assert call(capsys, "library", "verify", calibrated)[0] == 3


def test_transfer_predicts_before_and_reports_after(
    calibrated: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = (
        "transfer", "--task", "music", "--data", "data", "--backbone", "t5", "--k", "2", "--embedding-runs", "1",
        "--strategies", "best_of_top_k", *SMALL,
    )  # fmt: skip
    run = str(tmp_path / "run")
    code, out, err = call(capsys, *asked, "--library", calibrated, "--out", run)
    assert code == 0, err
    told = err.splitlines()
    before = next(i for i, line in enumerate(told) if "predicted gain (80 %)" in line)
    trained = next(i for i, line in enumerate(told) if line.startswith("transfer: "))
    assert before < trained
    assert "realised" in out
    assert "steps 4, not 8" in out
    assert "report-music.md" in out
    assert "## Predicted and realised gain" in (tmp_path / "run" / "report-music.md").read_text()
    code, out, err = call(capsys, *asked, "--library", "lib", "--out", str(tmp_path / "plain"), "--json")
    assert code == 0, err
    assert "no predicted gain" in err
    assert json.loads(out)["targets"][0]["expected"] == []
