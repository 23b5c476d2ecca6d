"""Data-parallel training equals one process, to float tolerance: two real gloo processes on the CPU.

The same with the backbone's layers in shards (FSDP2): the same sums, split over the same rows, in another order.
"""

import pytest
import torch
import torch.multiprocessing as mp
from tests.support.models import save_tiny
from tests.support.words import SETTINGS, examples, prompts, runs_of

from softprompt import distributed as parallel
from softprompt.backbones.load import load_backbone
from softprompt.errors import UsageError
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.encoded import encode_split
from softprompt.tasks.example import Split
from softprompt.training.loop import train_prompts

KINDS = ("t5", "encdec", "llama")


def trained(model, folder=None, *, sharded=False):
    torch.set_num_threads(1)
    backbone = load_backbone(str(model), dtype="float32", device="cpu", sharded=sharded)
    backbone.checkpointing = sharded  # recomputing layers changes no bit, and the shards must be there for it
    splits = tuple(
        encode_split(Split.of(name, examples(count, seed)), backbone, max_input_tokens=None, max_target_tokens=None)
        for name, count, seed in (("train", 40, 1), ("validation", 24, 2))
    )
    start = prompts(backbone, 2)
    before = backbone.weights_digest()
    results = train_prompts(backbone, PromptStack(start, tuned=True), runs_of(splits, [1, 2]), SETTINGS, folder)
    assert backbone.weights_digest() == before
    if sharded:
        whole = load_backbone(str(model), dtype="float32", device="cpu")
        assert held(backbone) < 0.7 * held(whole)
        with pytest.raises(UsageError, match="shards"):
            assert backbone.hf_model
    return results


def held(backbone):
    """Numbers this process holds of the layers."""
    if not backbone.sharded:
        tables = sum(p.numel() for n, p in backbone.hf_model.named_parameters() if not repeated(n))
        return backbone.parameter_count - tables
    module = getattr(backbone, "_root", None) or backbone._model
    return sum(p.to_local().numel() for p in module.parameters() if hasattr(p, "to_local"))


def repeated(name):
    return ".block." in name or ".layer." in name or ".layers." in name


def answers(results):
    return str([[c["score"] for c in r.curve] for r in results] + [r.predictions for r in results])


def worker(rank, processes, folder):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=processes
    )
    for sharded in (False, True):
        for kind in KINDS if sharded else KINDS[:1]:
            name = f"{kind}-{sharded}"
            results = trained(folder / kind, folder / name, sharded=sharded)
            torch.save({r.name: r.final["prompt"] for r in results}, folder / f"{name}-{rank}.pt")
            (folder / f"{name}-{rank}.txt").write_text(answers(results))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    for kind in KINDS:
        save_tiny(kind, folder / kind)
    mp.start_processes(worker, args=(2, folder), nprocs=2, start_method="spawn")
    return folder


@pytest.mark.parametrize(("kind", "sharded"), [("t5", False), *((kind, True) for kind in KINDS)])
@pytest.mark.slow
def test_two_processes_equal_one(both, kind, sharded):
    alone = trained(both / kind)
    name = f"{kind}-{sharded}"
    found = [torch.load(both / f"{name}-{rank}.pt", weights_only=True) for rank in range(2)]
    for result in alone:
        assert torch.equal(found[0][result.name], found[1][result.name])
        torch.testing.assert_close(found[0][result.name], result.final["prompt"], rtol=2e-3, atol=2e-4)
    texts = [(both / f"{name}-{rank}.txt").read_text() for rank in range(2)]
    assert texts[0] == texts[1] == answers(alone)
    assert (both / name / "results" / "word-1.json").exists()


def test_shards_need_processes(tmp_path):
    with pytest.raises(UsageError, match="torchrun"):
        load_backbone(str(save_tiny("t5", tmp_path / "model")), sharded=True)


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_shares_in_step_are_equally_many_and_cover_all(count, monkeypatch):
    found = {}
    for in_step in (False, True):
        for rank in range(3):
            monkeypatch.setattr(parallel, "world", lambda rank=rank: (rank, 3))
            found[in_step, rank] = parallel.shares(range(count), in_step=in_step)
        assert {i for rank in range(3) for i in found[in_step, rank]} == set(range(count))
    assert len({len(found[True, rank]) for rank in range(3)}) == 1
    assert sum(len(found[False, rank]) for rank in range(3)) == count
