"""Training speed on a GPU: one prompt, and N = 16, 64, 160 together, against PEFT in bfloat16 with SDPA.

    python benchmarks/gpu/train_speed.py /tmp/inputs /tmp/speed --minutes 9
    python benchmarks/gpu/train_speed.py --self-check

``benchmarks/train_speed.py`` on a device: the same contenders in processes of their own, alternating over the same rows.
``ours-plain`` is our step in plain PyTorch operations with attention over padded rows: it says what compiled formulas and
the kernel for packed rows are worth. First of all the device's losses are compared with the CPU's. A unit that is recorded
is not measured again.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import contenders
from job import ROOT, Budget, Job, job_of, parser, run, verify


def _table() -> Any:
    """``benchmarks/train_speed.py``, which has this script's name."""
    spec = importlib.util.spec_from_file_location("speed_table", ROOT / "benchmarks" / "train_speed.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One comparison; its seconds are a guess on an H200 that decides whether it still fits."""

    shape: str
    runs: int
    batch: int
    seconds: float = 70.0

    @property
    def name(self) -> str:
        return f"{self.shape}.N{self.runs}"


UNITS = (
    Unit(shape="builtin", runs=160, batch=8),
    Unit(shape="t5-base", runs=1, batch=32),
    Unit(shape="t5-base", runs=16, batch=32),
    Unit(shape="builtin", runs=16, batch=8),
    Unit(shape="builtin", runs=64, batch=8),
    Unit(shape="builtin", runs=1, batch=8),
    Unit(shape="t5-base", runs=64, batch=32, seconds=110.0),
)
KINDS = ("ours", "ours-plain", "peft-bf16", "matrix")
TOLERANCE = 2e-3
"""Most relative difference of a float32 loss on the device from the CPU's."""


def agree(job: Job, unit: Unit, steps: int = 3) -> dict[str, Any]:
    """Losses of float32 training steps on the device, beside those on the CPU."""
    base = contenders.Job(shape=unit.shape, batch=4, prompt=8, runs=2, dtype="float32", threads=2)
    places = {"cpu": base, "device": replace(base, device=job.device)}
    losses = {name: losses_of(each, steps) for name, each in places.items()}
    worst = max(abs(a - b) / abs(a) for a, b in zip(losses["cpu"], losses["device"], strict=True))
    return {"losses": losses, "worst_relative_difference": worst, "tolerance": TOLERANCE, "agrees": worst <= TOLERANCE}


def measured(job: Job, unit: Unit) -> list[dict[str, Any]]:
    """Records of one unit's contenders."""
    options, table = job.options, _table()
    given = contenders.Job(
        shape=unit.shape, task=options["task"], batch=unit.batch, prompt=options["prompt"], runs=unit.runs,
        threads=max(1, (os.cpu_count() or 4) // 4), device=job.device, micro_tokens=options["micro_tokens"],
    )  # fmt: skip
    found: list[dict[str, Any]] = table.summary(given, table.measure(given, list(KINDS), options["steps"]))
    table.show(found, f"{given.task}, {job.device}")
    return found


def work(job: Job, units: tuple[Unit, ...] = UNITS) -> None:
    """All units that fit the time, the most telling first."""
    done = job.done()
    if "agreement" not in done:
        found = agree(job, Unit(shape="toy", runs=2, batch=4))
        job.record("agreement", found)
        if not found["agrees"]:
            raise SystemExit(f"train_speed: losses on {job.device} are not the CPU's ({found}); nothing was timed.")
    for unit in units:
        if f"{unit.name}.ours" in done or f"{unit.name}.failed" in done:
            continue
        if job.budget.left < unit.seconds:
            print(f"{unit.name} does not fit the {job.budget.left:.0f} s that are left: run the same command again")
            continue
        try:
            records = measured(job, unit)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            job.record(f"{unit.name}.failed", {"failed": "a contender's process died; its own output says why"})
            continue
        for record in records:
            job.record(f"{unit.name}.{record['contender']}", {**record, "attention": "sdpa"})


def check(folder: Path) -> list[str]:
    """Toy shapes on the CPU: every contender runs, ratios and shares are numbers, what is recorded is not done again."""
    options = {"task": "rte", "prompt": 8, "steps": 2, "micro_tokens": 200}
    job = Job(name="train_speed", inputs=None, out=folder, device="cpu", budget=Budget(), seeds=(0,), options=options)
    units = (Unit(shape="toy", runs=3, batch=4, seconds=0.0),)
    work(replace(job, budget=Budget(seconds=0.0)), (replace(units[0], seconds=1.0),))
    early = sorted(job.done())
    work(job, units)
    lines = (folder / "results.jsonl").read_text().splitlines()
    work(job, units)
    again = (folder / "results.jsonl").read_text().splitlines()
    done = job.done()
    ours, plain, peft = (done[f"toy.N3.{kind}"] for kind in KINDS[:3])
    numbers = [ours[key] for key in ("speedup_over_peft-bf16", "share_of_matrix_rate", "tokens_per_second",
                                     "device_ms_per_prompt_step", "matrix_gflops")]  # fmt: skip
    close = abs(ours["loss"] - plain["loss"]) / plain["loss"]
    toy = contenders.Job(shape="toy", batch=4, prompt=8, runs=3, dtype="float32")
    passes = [losses_of(replace(toy, micro_tokens=tokens), 2)[1] for tokens in (0, 200)]
    return [
        verify(early == ["agreement"], "without time only the agreement is measured"),
        verify(done["agreement"]["agrees"], "losses on the device are the CPU's"),
        verify(all(n > 0 for n in numbers), "ratio, share of the matrix rate, tokens a second are computed"),
        verify(ours["runs"] == plain["runs"] == 3 and peft["runs"] == 1, "ours trains N together, PEFT one"),
        verify(close < 0.02, f"kernels and plain operations give one loss to {close:.1e}"),
        verify(abs(passes[0] - passes[1]) / passes[0] < 1e-4, "small passes give the loss of one pass"),
        verify(lines == again, "what is recorded is not measured again"),
        verify(
            {"command", "seeds", "data", "device", "versions"} <= set(json.loads(lines[-1])),
            "records say what made them",
        ),
    ]


def losses_of(given: contenders.Job, steps: int) -> list[float]:
    """Losses of our first steps, in this process."""
    step, _ = contenders.ours(given)
    return [step(number)[0] for number in range(steps)]


def main() -> None:
    made = parser(__doc__ or "")
    made.add_argument("--task", default="rte", choices=["rte", "boolq"])
    made.add_argument("--prompt", type=int, default=100, help="P")
    made.add_argument("--steps", type=int, default=10, help="measured steps of each contender")
    made.add_argument("--micro-tokens", type=int, default=131072, help="most positions in one pass of ours; 0: all")
    made.add_argument("--only", nargs="*", help="units by name, e.g. t5-base.N1")
    args = made.parse_args()

    def begin() -> None:
        job = job_of(
            "train_speed", args, task=args.task, prompt=args.prompt, steps=args.steps, micro_tokens=args.micro_tokens
        )
        work(job, tuple(unit for unit in UNITS if not args.only or unit.name in args.only))

    run("train_speed", args, begin, check)


if __name__ == "__main__":
    main()
