"""Training speed against PEFT: the same rows, the same shapes, in one run, alternating.

    python benchmarks/train_speed.py                                  # T5-base shape, RTE, all contenders
    python benchmarks/train_speed.py --shape builtin --runs 16        # 16 prompts together against one after the other
    python benchmarks/train_speed.py --task boolq --steps 3 --json speed.jsonl
    SOFTPROMPT_KERNELS=avx512_bf16 python benchmarks/train_speed.py   # every contender as on a machine without matrix tiles
    python benchmarks/train_speed.py --shape smollm2 --task sst2 --batch 16 --prompt 16  # decoder-only

Prints a table: milliseconds a prompt-step, useful tokens a second, the ratio to PEFT, the share of the machine's matrix rate
(measured in the same run; useful operations only: no padding, nothing recomputed), and peak memory a useful token.
Wall time is what counts; CPU time is shown because it stays meaningful when other work shares the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads must not slow the one whose turn it is

from contenders import DECODER, DECODER_SHAPE, Job, Step, Worker, t5_config

# softprompt comes before torch: it holds every contender to the level of instructions that SOFTPROMPT_KERNELS names.
from softprompt.backbones.engine.native.levels import in_force, processor


def operations(job: Job, tokens: int, rows: int) -> float:
    """Useful operations of one step: twice the multiplications of the encoder's matrices and attention, forward and input
    gradient. The decoder's few positions and its cross-attention are left out (they are below 3 %)."""
    if job.shape == DECODER:
        return _decoder_operations(job, tokens, rows)
    if job.shape == "builtin":
        width, inner, layers, mats = 384, 1536, 6, 2
        heads_width = width
    else:
        config = t5_config(job.shape, 0.0)
        width, inner, layers, mats = config.d_model, config.d_ff, config.num_layers, 3
        heads_width = config.num_heads * config.d_kv
    length = tokens / rows
    per_token = 2 * (4 * width * heads_width + mats * width * inner) + 4 * length * heads_width
    return 2.0 * per_token * tokens * layers


def _decoder_operations(job: Job, tokens: int, rows: int) -> float:
    """The same for a decoder-only model. What is useful is one pass of each prompt and of every row's text; two predicted
    tokens a row; in attention every position's own past."""
    shape = DECODER_SHAPE
    texts, prompts = tokens - rows * job.prompt, rows // job.batch
    positions = texts + prompts * job.prompt
    width, head = shape["width"], shape["head"]
    linear = width * (2 * shape["heads"] + 2 * shape["groups"]) * head + 3 * width * shape["inner"]
    seen = texts * (job.prompt + texts / rows / 2) + prompts * job.prompt**2 / 2
    attention = 2 * seen * shape["heads"] * head
    return 2.0 * 2.0 * (shape["layers"] * (linear * positions + attention) + 2 * rows * width * shape["vocabulary"])


def measure(job: Job, kinds: list[str], steps: int) -> dict[str, list[Step]]:
    """Alternate the contenders over the same batches; one unmeasured step each first."""
    workers = {kind: Worker(kind, job) for kind in kinds}
    for worker in workers.values():
        worker.wait()
    for worker in workers.values():
        worker.step(0)
    found: dict[str, list[Step]] = {kind: [] for kind in kinds}
    for number in range(1, steps + 1):
        for kind, worker in workers.items():
            found[kind].append(worker.step(number))
    for worker in workers.values():
        worker.close()
    return found


def measure_apart(job: Job, kinds: list[str], steps: int, rounds: int) -> dict[str, list[Step]]:
    """The same where the contenders do not fit in memory together: they take turns as processes, each turn with one
    unmeasured step, so that no turn pays for pages that another one has."""
    found: dict[str, list[Step]] = {kind: [] for kind in kinds}
    for turn in range(rounds):
        for kind in kinds:
            worker = Worker(kind, job)
            worker.step(0)
            found[kind] += [worker.step(1 + turn * steps + number) for number in range(steps)]
            worker.close()
    return found


def summary(job: Job, found: dict[str, list[Step]]) -> list[dict[str, Any]]:
    """One record per contender."""
    rate = max(step.tokens / step.wall for step in found["matrix"])
    cpu_rate = max(step.tokens / step.cpu for step in found["matrix"])
    records = []
    for kind, steps in found.items():
        if kind == "matrix":
            continue
        runs = job.runs if kind.startswith("ours") else 1
        wall = statistics.median(s.wall for s in steps)
        cpu = statistics.median(s.cpu for s in steps)
        tokens = statistics.mean(s.tokens for s in steps)
        work = operations(job, int(tokens), runs * job.batch)
        records.append(
            {
                "contender": kind, "shape": job.shape, "task": job.task, "batch": job.batch, "prompt": job.prompt, "runs": runs,
                "threads": job.threads, "dropout": job.dropout, "peft_rows": job.peft_rows, "steps": len(steps), "wall_ms_per_prompt_step": 1000 * wall / runs,
                "cpu_ms_per_prompt_step": 1000 * cpu / runs, "tokens_per_second": tokens / wall,
                "share_of_matrix_rate": work / wall / rate, "share_by_cpu_time": work / cpu / cpu_rate,
                "matrix_gflops": rate / 1e9, "memory_bytes_per_token": max(s.memory for s in steps) / tokens,
                "loss": steps[-1].loss, "device": job.device, "processor": processor(), "level": in_force().name,
                "level_forced": bool(os.environ.get("SOFTPROMPT_KERNELS")),
                "device_ms_per_prompt_step": 1000 * statistics.median(s.device for s in steps) / runs,
            }
        )  # fmt: skip
    for record in records:
        for other in records:
            if not other["contender"].startswith("ours"):
                name = other["contender"]
                record[f"speedup_over_{name}"] = other["wall_ms_per_prompt_step"] / record["wall_ms_per_prompt_step"]
                record[f"cpu_speedup_over_{name}"] = other["cpu_ms_per_prompt_step"] / record["cpu_ms_per_prompt_step"]
    return records


def show(records: list[dict[str, Any]], source: str) -> None:
    """A plain table."""
    first = records[0]
    print(
        f"{first['shape']}, {source}, batch {first['batch']}, P = {first['prompt']}; {first['processor']} at {first['level']}, "
        f"matrix rate {first['matrix_gflops']:.0f} GFLOP/s"
    )
    print(f"{'':12}{'N':>4}{'ms/prompt-step':>16}{'(cpu)':>9}{'tokens/s':>10}{'share':>7}{'(cpu)':>7}{'KB/token':>10}")
    for r in records:
        print(
            f"{r['contender']:12}{r['runs']:>4}{r['wall_ms_per_prompt_step']:>16.0f}{r['cpu_ms_per_prompt_step']:>9.0f}"
            f"{r['tokens_per_second']:>10.0f}{100 * r['share_of_matrix_rate']:>6.0f}%{100 * r['share_by_cpu_time']:>6.0f}%"
            f"{r['memory_bytes_per_token'] / 1024:>10.0f}"
        )
    for key, value in first.items():
        if "speedup_over" in key and first["contender"] == "ours":
            print(f"{key.replace('_', ' ')}: {value:.1f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="t5-base", choices=["t5-base", "t5-small", "builtin", DECODER, "toy"])
    parser.add_argument("--task", default="rte", choices=["rte", "boolq", "sst2"])
    parser.add_argument("--batch", type=int, default=32, help="rows a run and step")
    parser.add_argument("--prompt", type=int, default=100, help="P")
    parser.add_argument("--runs", type=int, default=1, help="prompts we train together")
    parser.add_argument("--steps", type=int, default=3, help="measured steps of each contender")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N")
    parser.add_argument("--micro-tokens", type=int, default=0, help="most positions in one pass of ours; 0: all")
    parser.add_argument("--dropout", type=float, help="0.1 for T5 and the embedded backbone, else 0")
    parser.add_argument("--checkpointing", action="store_true", help="recompute layers (ours)")
    parser.add_argument(
        "--rounds", type=int, default=0,
        help="run one contender at a time, this many turns of --steps each, where their memory does not fit together",
    )  # fmt: skip
    parser.add_argument(
        "--peft-rows", type=int, default=0, help="rows of a PEFT pass where its memory does not hold a batch"
    )
    parser.add_argument("--contenders", default="ours,peft-bf16,peft-fp32")
    parser.add_argument("--json", type=Path, help="append one JSON line per contender")
    args = parser.parse_args()
    dropout = args.dropout if args.dropout is not None else 0.0 if args.shape == DECODER else 0.1
    job = Job(
        shape=args.shape, task=args.task, batch=args.batch, prompt=args.prompt, runs=args.runs, threads=args.threads,
        dropout=dropout, checkpointing=args.checkpointing, peft_rows=args.peft_rows,
        device=args.device, micro_tokens=args.micro_tokens,
    )  # fmt: skip
    kinds = [*args.contenders.split(","), "matrix"]
    found = measure_apart(job, kinds, args.steps, args.rounds) if args.rounds else measure(job, kinds, args.steps)
    records = summary(job, found)
    show(records, f"{job.task}")
    if args.json:
        with args.json.open("a") as file:
            for record in records:
                file.write(json.dumps({**record, "command": "python " + " ".join(sys.argv)}) + "\n")


if __name__ == "__main__":
    main()
