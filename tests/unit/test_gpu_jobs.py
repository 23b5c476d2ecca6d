"""The GPU jobs where there is no GPU: they import without optional packages, and their self-checks pass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmarks.gpu import pieces
from benchmarks.gpu.job import Budget, CheckError, Job, fingerprint, verify

ROOT = Path(__file__).resolve().parents[2]
JOBS = ROOT / "benchmarks" / "gpu"
SCRIPTS = ("prepare_inputs", "prepare_pretraining", "pieces", "pretrain", "evidence", "train_speed", "serving_speed")
# A machine that is lent has torch, transformers, peft, sentencepiece, safetensors, tokenizers and numpy; not these.
BLOCKED = ("datasets", "pydantic", "ray", "typer", "rich", "sklearn", "scipy", "matplotlib", "pandas", "pyarrow")
# Read by every Python process that starts with this folder on its path, the jobs' own workers included.
SITECUSTOMIZE = f"""
import sys

BLOCKED = {BLOCKED!r}


class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


sys.meta_path = [Without(finder) for finder in sys.meta_path]
sys.path = [place for place in sys.path if place != {str(ROOT / "src")!r}]  # nor is this package installed there
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a Python without the blocked packages, without data and without network."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SOFTPROMPT_DATA")}
    return {**kept, "PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1", "SOFTPROMPT_DATA": str(folder / "none"),
            "OMP_NUM_THREADS": "1", "SOFTPROMPT_CACHE": str(folder / "cache")}  # fmt: skip


def call(bare: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], env=bare, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )


def test_the_blocked_packages_are_not_there(bare: dict[str, str]) -> None:
    code = "import importlib.util as u; print([n for n in %r if u.find_spec(n)])" % (BLOCKED,)  # noqa: UP031
    assert call(bare, "-c", code).stdout.strip() == "[]"
    assert call(bare, "-c", "import rich").returncode == 1


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_imports_without_them(bare: dict[str, str], script: str) -> None:
    done = call(bare, str(JOBS / f"{script}.py"), "--help")
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


@pytest.mark.parametrize(
    "script",
    [
        "serving_speed",
        "evidence",
        "prepare_pretraining",
        "pretrain",
        "train_speed",
    ],
)
@pytest.mark.slow
def test_self_checks_pass_without_them(bare: dict[str, str], script: str) -> None:
    done = call(bare, str(JOBS / f"{script}.py"), "--self-check")
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{script}: self-check passed" in done.stdout


@pytest.mark.slow
def test_missing_folders_are_named(bare: dict[str, str], tmp_path: Path) -> None:
    bare_call = call(bare, str(JOBS / "serving_speed.py"), str(tmp_path / "absent"), str(tmp_path / "out"))
    assert bare_call.returncode == 1
    assert "there is no folder" in bare_call.stderr


def test_pieces_arrive_whole_or_not_at_all(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "a.bin").write_bytes(os.urandom(50_000))
    (source / "b.txt").write_text("b")
    sent = pieces.cut(source, tmp_path / "send", 20_000)
    again = pieces.cut(source, tmp_path / "again", 20_000)
    assert [p.name for p in sent] == [f"send-{n:02d}" for n in range(len(sent))]
    assert len(sent) > 2
    assert fingerprint(sent[0]) == fingerprint(again[0])
    assert all(sum(p.stat().st_size for p in (folder / f for f in os.listdir(folder)) if p.name != pieces.MANIFEST) <= 20_000 for folder in sent)  # fmt: skip
    into = tmp_path / "into"
    assert pieces.receive(sent[1:], into) == ["piece-000"]
    assert not into.exists()
    assert pieces.receive([sent[1]], into) == ["piece-000"]
    assert pieces.receive([sent[0]], into) == []
    assert fingerprint(into) == fingerprint(source)
    flat = pieces.cut(source, tmp_path / "flat", 20_000, flat=True)
    assert flat == [tmp_path / "flat"]
    assert pieces.receive(flat, tmp_path / "other") == []
    assert fingerprint(tmp_path / "other") == fingerprint(source)


def test_damaged_and_mixed_pieces_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(name.encode() * 9000)
    one, two = (pieces.cut(tmp_path / name, tmp_path / f"{name}-send", 10_000) for name in ("one", "two"))
    pieces.receive(one[:1], tmp_path / "into")
    with pytest.raises(pieces.PiecesError, match="another sending"):
        pieces.receive(two[:1], tmp_path / "into")
    (one[1] / "piece-001").write_bytes(b"x")
    with pytest.raises(pieces.PiecesError, match="not what was sent"):
        pieces.receive(one[1:2], tmp_path / "into")
    with pytest.raises(pieces.PiecesError, match="no readable"):
        pieces.receive([tmp_path], tmp_path / "into")


def job(folder: Path) -> Job:
    return Job(name="toy", inputs=None, out=folder, device="cpu", budget=Budget(), seeds=(1,))


def test_records_survive_a_torn_line(tmp_path: Path) -> None:
    job(tmp_path).record("a", {"value": 1})
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"job": "toy", "unit": "b", "val')
    job(tmp_path).record("c", {"value": 3})
    done = job(tmp_path).done()
    assert {unit: record["value"] for unit, record in done.items()} == {"a": 1, "c": 3}
    assert {"command", "seeds", "data", "device", "versions"} <= set(done["a"])
    assert str(ROOT) not in json.dumps(done)


def test_a_budget_ends_and_a_check_fails() -> None:
    assert Budget.of(0).left == float("inf")
    assert not Budget.of(1).over
    assert Budget(seconds=1.0, started=time.monotonic() - 2).over
    assert verify(True, "so") == "so"
    with pytest.raises(CheckError, match="not so"):
        verify(False, "not so")
