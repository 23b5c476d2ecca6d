"""Data-parallel training equals one process, to float tolerance: two real gloo processes on the CPU."""

import torch
import torch.multiprocessing as mp
from tests.models import save_tiny
from tests.unit.training.test_loop import SETTINGS, examples, prompts, runs_of

from softprompt.backbones.load import load_backbone
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.encoded import encode_split
from softprompt.tasks.task import Split
from softprompt.training.loop import train_prompts


def trained(model, folder=None):
    torch.set_num_threads(1)
    backbone = load_backbone(str(model), dtype="float32")
    splits = tuple(
        encode_split(Split.of(name, examples(count, seed)), backbone, max_input_tokens=None, max_target_tokens=None)
        for name, count, seed in (("train", 40, 1), ("validation", 24, 2))
    )
    start = prompts(backbone, 2)
    return train_prompts(backbone, PromptStack(start, tuned=True), runs_of(splits, [1, 2]), SETTINGS, folder)


def worker(rank, processes, folder):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=processes
    )
    results = trained(folder / "model", folder / "run")
    torch.save({r.name: r.final["prompt"] for r in results}, folder / f"rank-{rank}.pt")
    (folder / f"rank-{rank}.txt").write_text(str([[c["score"] for c in r.curve] for r in results]))
    torch.distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    alone = trained(save_tiny("t5", tmp_path / "model"))
    mp.start_processes(worker, args=(2, tmp_path), nprocs=2, start_method="spawn")
    for rank in range(2):
        found = torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True)
        for result in alone:
            torch.testing.assert_close(found[result.name], result.final["prompt"], rtol=2e-3, atol=2e-4)
    expected = str([[c["score"] for c in r.curve] for r in alone])
    assert (tmp_path / "rank-0.txt").read_text() == (tmp_path / "rank-1.txt").read_text() == expected
    assert (tmp_path / "run" / "results" / "word-1.json").exists()
