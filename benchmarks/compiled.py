"""What torch.compile brings on this machine: five ways to do the same training step, one after the other.

    python benchmarks/compiled.py --threads 1

``ours`` has kernels of its own between the products, ``ours-plain`` PyTorch operations, ``ours-compiled`` the same compiled,
``hf`` Hugging Face's modules over padded rows, ``hf-compiled`` all of them compiled. One JSON line each: wall seconds of the first
call (with all compiling), and of a later step the least wall and processor seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parent))

from contenders import Job, Worker

WAYS = ("ours", "ours-plain", "ours-compiled", "hf", "hf-compiled")


def main(arguments: list[str]) -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="builtin", choices=["toy", "t5-small", "t5-base", "builtin"])
    parser.add_argument("--task", default="rte", choices=["rte", "boolq"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5, help="steps after the first")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    options = parser.parse_args(arguments)
    job = Job(
        shape=options.shape,
        task=options.task,
        batch=options.batch,
        prompt=options.prompt,
        threads=options.threads,
        dropout=0.0,
    )
    for way in options.ways:
        worker = Worker(way, job)
        rows = worker.wait()
        first, *rest = [worker.step(number) for number in range(options.steps + 1)]
        worker.close()
        line = {
            "way": way,
            "first_call_seconds": round(first.wall, 2),
            "step_seconds": round(min(step.wall for step in rest), 4),
            "step_cpu_seconds": round(min(step.cpu for step in rest), 4),
            "first_loss": first.loss,
            "rows": rows,
            "job": asdict(job),
            "command": shlex.join(["python", "benchmarks/compiled.py", *arguments]),
        }
        print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
