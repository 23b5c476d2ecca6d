"""Data-parallel model tuning equals one process, to float tolerance: two real gloo processes on the CPU."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from tests.support.models import save_tiny
from tests.support.small_tasks import small_data

from softprompt.backbones.load import load_backbone
from softprompt.errors import OutOfMemoryError
from softprompt.training.settings import TuneSettings
from softprompt.training.weights.live import LiveModel
from softprompt.training.weights.loop import Tuning
from softprompt.training.weights.tune import tune_model
from softprompt.training.weights.tuned import TunedModel

SETTINGS = TuneSettings(
    steps=2, batch_tokens=100, eval_every=2, eval_rows=0, max_input_tokens=32, max_target_tokens=8, dropout=0.0,
    micro_batch_tokens=40, learning_rate=0.01,
)  # fmt: skip


HOW = ("replicated", "sharded", "short of memory")


def tuned(model: Path, folder: Path | None = None, how: str = "replicated", resume: bool = False) -> TunedModel:
    torch.set_num_threads(1)
    backbone = load_backbone(str(model), dtype="float32")
    return tune_model(
        backbone,
        small_data(backbone).run("animals", 0),
        SETTINGS.having(sharded=how == "sharded", micro_batch_tokens=200 if how == "short of memory" else 40),
        folder,
        keep_final=True,
        resume=resume,
    )


def run_out_of_memory_once() -> None:
    """The first micro-batch of this process does not fit."""
    compute = Tuning._micro_batch
    left = [torch.OutOfMemoryError("CUDA out of memory")]

    def first_fails(self: Tuning, *given: Any) -> torch.Tensor:
        if left:
            raise left.pop()
        return compute(self, *given)

    Tuning._micro_batch = first_fails  # type: ignore[method-assign]


def worker(rank: int, processes: int, folder: Path, how: str) -> None:
    warnings.filterwarnings("ignore")
    if how == "short of memory" and rank == 0:
        run_out_of_memory_once()
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=processes
    )
    result = tuned(folder / "model", folder / "run", how)
    assert result.last is not None
    if how == "short of memory":  # one process halves its passes, and every row is still counted once
        assert result.evidence["micro_batch_tokens"] == (100 if rank == 0 else 200)
    torch.save(dict(result.last.weights), folder / f"rank-{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_two_processes_equal_one(tmp_path: Path, how: str) -> None:
    alone = tuned(save_tiny("t5", tmp_path / "model", width=128))  # wide enough for factored moments
    mp.start_processes(worker, args=(2, tmp_path, how), nprocs=2, start_method="spawn")
    assert alone.last is not None
    for rank in range(2):
        found = torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True)
        for name, weight in alone.last.weights.items():
            # an entry whose gradient is rounding noise may take its first step the other way
            assert (found[name] - weight).abs().mean() < 1e-4, name
    first, second = (torch.load(tmp_path / f"rank-{r}.pt", weights_only=True) for r in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    scores = json.loads((tmp_path / "run" / "result.json").read_text())["scores"]
    assert scores["score"] == pytest.approx(alone.scores["score"])
    assert (tmp_path / "run" / "result.json").exists()


def test_shards_cannot_go_back_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(LiveModel, "sharded", True)
    monkeypatch.setattr(Tuning, "_micro_batch", Tuning._micro_batch)  # put back afterwards
    run_out_of_memory_once()
    with pytest.raises(OutOfMemoryError, match="lower micro_batch_tokens, which is 40, or set checkpointing"):
        tuned(save_tiny("t5", tmp_path / "model"))
