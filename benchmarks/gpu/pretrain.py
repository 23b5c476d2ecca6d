"""Pre-train the embedded T5, or one of a ladder of three sizes, from tokenised shards.

    python benchmarks/gpu/pretrain.py /tmp/text /tmp/pretrain --minutes 9 --positions 1e9
    python benchmarks/gpu/pretrain.py /tmp/text /tmp/pretrain --size small --positions 2e8
    python benchmarks/gpu/pretrain.py --self-check

T5 v1.1 by ``recipes/embedded_backbone``: span corruption, then the prefix-LM adaptation for the last fifth. The first call
measures the speed and sets the number of steps: those of ``--positions``, or as many as fit ``--total-minutes``. Each call
stops after ``--minutes`` with its state saved, and the same command goes on. The model lies in ``out/<size>/model``.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "recipes"))
sys.path.insert(0, str(Path(__file__).parent))

from job import Budget, Job, fingerprint, job_of, parser, run, verify


@dataclass(frozen=True, kw_only=True)
class Size:
    """A T5 v1.1 shape with an 8k tied vocabulary: encoder and decoder have ``layers`` each."""

    width: int
    heads: int
    feed_forward: int
    layers: int


SIZES = {
    "small": Size(width=192, heads=3, feed_forward=512, layers=4),
    "embedded": Size(width=320, heads=5, feed_forward=896, layers=4),
    "large": Size(width=512, heads=8, feed_forward=1408, layers=8),
    "toy": Size(width=32, heads=2, feed_forward=64, layers=1),
}
MOST_EMBEDDED = 16_000_000
PROBE = 40
"""Steps that tell the speed; the first half warms up."""
SAVE_SECONDS = 20.0
"""Kept free at the end of a call for saving, validating and exporting."""


def settings_of(job: Job, size: Size, folder: Path, steps: int) -> Any:
    """The recipe of one size."""
    from embedded_backbone import PretrainSettings

    assert job.inputs is not None
    options, toy = job.options, size == SIZES["toy"]
    return PretrainSettings(
        text=job.inputs, folder=folder, architecture="t5", objective="span", **asdict(size), steps=steps,
        batch=options["batch"], micro_batch=options["micro_batch"], inputs_tokens=options["length"], short_share=0.2,
        slot_rows=0, candidates=0, adapt=0.2, warm_up=max(1, min(300, steps // 20)), decay=0.3, seed=job.seeds[0],
        validate_every=max(1, steps // 10), save_every=max(1, steps // 10), validation_examples=8 if toy else 1024,
        compile=options["compile"], device=job.device,
    )  # fmt: skip


def pretrain_size(job: Job, name: str) -> dict[str, Any]:
    """Go on with one size until it is done or the time is over; returns its record."""
    from embedded_backbone.train import pretrain

    folder = job.out / name
    plan = planned(job, name, folder)
    settings = settings_of(job, SIZES[name], folder, plan["steps"])
    lines: list[dict[str, Any]] = []
    end = job.budget.left - (SAVE_SECONDS if job.device != "cpu" else 0.0)
    clock = Budget(seconds=end)
    at = job.options["stop_after"]
    model = pretrain(settings, log=lines.append, stop=lambda: clock.over, stop_after=at)
    facts = json.loads((model / "training.json").read_text(encoding="utf-8"))["facts"]
    trained = [line for line in lines if line["part"] == "train"]
    values = {
        "size": name, "parameters": parameters(model), "plan": plan, "step": facts["step"], "steps": plan["steps"],
        "finished": facts["step"] == plan["steps"], "tokens": facts["tokens"], "train_seconds": round(facts["seconds"], 2),
        "tokens_per_second": facts["tokens"] / max(facts["seconds"], 1e-9), "held_out": facts["held_out"],
        "last_train_loss": trained[-1]["loss"] if trained else None, "settings": settings.as_json(),
        "peak_memory": peak_memory(job.device),
    }  # fmt: skip
    return job.record(f"{name}@{facts['step']}", values, data=plan["data"])


def planned(job: Job, name: str, folder: Path) -> dict[str, Any]:
    """The plan of a size: made once from the measured speed, kept beside its state."""
    path = folder / "plan.json"
    if path.is_file():
        plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if plan["data"] != fingerprint(job.inputs):
            raise SystemExit(f"pretrain: {folder} was begun with other shards; name another folder of results.")
        return plan
    options = job.options
    per_step = options["batch"] * options["length"]
    wanted = max(2, round(options["positions"] / per_step))
    seconds = None
    if options["total_minutes"] > 0:
        seconds = step_seconds(job, name)
        wanted = min(wanted, max(2, int(60 * options["total_minutes"] / seconds)))
    plan = {
        "size": name,
        "steps": wanted,
        "positions": wanted * per_step,
        "measured_step_seconds": seconds,
        "data": fingerprint(job.inputs),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
    return plan


def step_seconds(job: Job, name: str) -> float:
    """Seconds of a full-length step, warmed up."""
    import tempfile

    from embedded_backbone.train import pretrain

    probe = job.options["probe"]
    marks: list[float] = []

    def mark() -> bool:
        marks.append(time.monotonic())
        return False

    with tempfile.TemporaryDirectory(dir=job.out) as folder:
        settings = settings_of(job, SIZES[name], Path(folder), probe)
        settings = replace(settings, short_share=0.0, adapt=0.0, validate_every=probe + 1, save_every=probe + 1)
        pretrain(settings, stop_after=probe - 1, stop=mark)
    half = len(marks) // 2
    return max(1e-6, (marks[-1] - marks[half]) / max(1, len(marks) - 1 - half))


def parameters(model: Path) -> int:
    """Stored parameters of an exported model, tied ones once."""
    from safetensors import safe_open

    count = 0
    for path in sorted(model.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (no mapping)
                size = 1
                for extent in file.get_slice(key).get_shape():
                    size *= extent
                count += size
    return count


def peak_memory(device: str) -> int | None:
    """Bytes that were allocated at most on a CUDA device; None elsewhere."""
    if not device.startswith("cuda"):
        return None
    import torch

    return int(torch.cuda.max_memory_allocated(device))


def check(folder: Path) -> list[str]:
    """A toy size: finite falling losses, a stopped run equals a straight one, the export opens and has the loss."""
    import torch
    from prepare_pretraining import toy_shards

    shards = toy_shards(folder)
    base = {"batch": 8, "micro_batch": 4, "length": 48, "positions": 16 * 8 * 48, "total_minutes": 0.0, "probe": 4,
            "compile": False, "stop_after": None}  # fmt: skip

    def job(name: str, **more: Any) -> Job:
        (folder / name).mkdir(exist_ok=True)
        return Job(
            name="pretrain",
            inputs=shards,
            out=folder / name,
            device="cpu",
            budget=Budget(),
            seeds=(1,),
            options=base | more,
        )

    whole = pretrain_size(job("whole"), "toy")
    part = pretrain_size(job("parts", stop_after=7), "toy")
    rest = pretrain_size(job("parts"), "toy")
    over = replace(job("late"), budget=Budget(seconds=0.0))
    late = pretrain_size(over, "toy")
    states = [folder / name / "toy" / "state" / "tensors.safetensors" for name in ("whole", "parts")]
    written = [json.loads(line) for line in (folder / "whole/toy/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in written if line["part"] == "held out"]
    probe = step_seconds(job("probe"), "toy")
    from transformers import AutoModelForSeq2SeqLM

    model = AutoModelForSeq2SeqLM.from_pretrained(folder / "whole" / "toy" / "model")
    ids = torch.arange(2, 20)[None]
    return [
        verify(all(torch.isfinite(torch.tensor(losses)).tolist()), "all losses are finite"),
        verify(losses[-1] < losses[0], f"the loss falls: {losses[0]} to {losses[-1]}"),
        verify(whole["finished"] and not part["finished"] and rest["finished"], "a stopped run says so and goes on"),
        verify(states[0].read_bytes() == states[1].read_bytes(), "resumed equals never stopped, bit for bit"),
        verify(late["step"] == 1 and not late["finished"], "without time it stops after a step, saved"),
        verify(rest["step"] == 16 and len(job("parts").done()) == 2, "each call leaves a record"),
        verify(probe > 0, "a step's seconds are measured"),
        verify(bool(torch.isfinite(model(input_ids=ids, labels=ids).loss)), "the model opens in plain transformers"),
        verify(count_of("embedded") <= MOST_EMBEDDED, f"the embedded size has {count_of('embedded'):,} parameters"),
        verify(count_of("small") < count_of("embedded") < count_of("large"), "the ladder has three sizes"),
    ]


def count_of(name: str, vocabulary: int = 8128) -> int:
    """Parameters of a size, from its shape."""
    size = SIZES[name]
    attention, feed, norm = 4 * size.width**2, 3 * size.width * size.feed_forward, size.width
    stacks = size.layers * (3 * attention + 2 * feed + 5 * norm) + 2 * norm + 2 * 32 * size.heads
    return vocabulary * size.width + stacks


def main() -> None:
    made = parser(__doc__ or "")
    made.add_argument("--size", choices=sorted(SIZES), default="embedded")
    made.add_argument("--positions", type=float, default=1e9, help="token positions to train on, at most")
    made.add_argument("--total-minutes", type=float, default=9.0, help="of training over all calls; 0: no limit")
    made.add_argument("--batch", type=int, default=512, help="chunks a step")
    made.add_argument("--micro-batch", type=int, default=256, help="chunks a forward pass")
    made.add_argument("--length", type=int, default=256, help="tokens of a chunk")
    made.add_argument("--no-compile", action="store_true", help="do not compile the layers")
    args = made.parse_args()

    def work() -> None:
        job = job_of(
            "pretrain", args, batch=args.batch, micro_batch=args.micro_batch, length=args.length, probe=PROBE,
            positions=args.positions, total_minutes=args.total_minutes, compile=not args.no_compile, stop_after=None,
        )  # fmt: skip
        record = pretrain_size(job, args.size)
        print(json.dumps({key: record[key] for key in ("size", "parameters", "step", "steps", "finished", "tokens",
                                                       "tokens_per_second", "held_out")}))  # fmt: skip

    run("pretrain", args, work, check)


if __name__ == "__main__":
    main()
