"""``softprompt counts``: what each method tunes and stores for a task, computed for any backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from softprompt.cli import opening
from softprompt.cli import options as o
from softprompt.cli.app import app, command
from softprompt.cli.flags import flag
from softprompt.cli.output import AT_HAND, Answer, table

if TYPE_CHECKING:
    from softprompt.backbones.shapes import Shape
    from softprompt.methods.counts import Counts

T5_NAMES = "t5-small,t5-base,t5-large,t5-xl,t5-xxl"


@command(
    app,
    "counts",
    "softprompt counts --backbones t5-base,t5-xxl",
    "softprompt counts --backbones builtin --prompt-length 16",
)
def counts(
    *,
    backbones: Annotated[
        str, flag("--backbones", "T5 1.1 by size (t5-small to t5-xxl), builtin, folders, hub ids.")
    ] = T5_NAMES,
    prompt_length: Annotated[int, flag("--prompt-length", "P of prompt tuning and SPoT.", min=1)] = 100,
    sharpt_length: Annotated[int, flag("--sharpt-length", "P of SharPT.", min=1)] = 64,
    skills: Annotated[int, flag("--skills", "K, skills of SharPT.", min=1)] = 256,
    encoder_width: Annotated[int, flag("--encoder-width", "m of SharPT; 768 is SimCSE BERT-base's.", min=1)] = 768,
    held: o.DeviceFlags,
) -> Answer:
    """Count what each method tunes for a task, without training."""
    from softprompt.methods.counts import count

    rows: list[dict[str, Any]] = []
    for name in opening.words(backbones, "--backbones"):
        shape = _shape(name, held)
        whole = count("model-tuning", shape)
        made = (
            count("prompt-tuning", shape, prompt_length=prompt_length),
            count("sharpt", shape, prompt_length=sharpt_length, skill_count=skills, encoder_width=encoder_width),
            whole,
        )
        rows += [_row(name, shape, one, whole) for one in made]
    columns = [
        "backbone", "parameters", "method", "tuned for\na task", "%", "stored\nMiB", "times\nfewer", "shared\nby all",
    ]  # fmt: skip
    cells = [
        [r["backbone"], r["parameters"], r["method"], r["tuned"], f"{r['percent']:.3g}", r["stored_bytes"] / 2**20,
         round(r["times_fewer"]), r["shared"]] for r in rows
    ]  # fmt: skip
    named = ("--backbone", rows[0]["backbone"])
    return Answer(
        data={"counts": rows},
        show=table(columns, cells),
        next=[("train", AT_HAND, *named), ("model-tune", "--task", AT_HAND, "--lora", *named)],
    )


def _shape(name: str, held: o.DeviceFlags) -> Shape:
    """Of a published size by name, else of a backbone that is loaded."""
    from softprompt.backbones.shapes import T5_SIZES, Shape

    if name in T5_SIZES:
        return T5_SIZES[name]
    opened = opening.open_backbone(name, held.dtype, held.device)
    count = opened.parameter_count
    return Shape(parameters=count, passed=count, width=opened.hidden_size, layers=0)


def _row(name: str, shape: Shape, one: Counts, whole: Counts) -> dict[str, Any]:
    return {
        "backbone": name, "parameters": shape.parameters, "method": one.method, "tuned": one.tuned, "percent": one.percent,
        "stored_bytes": one.stored_bytes, "times_fewer": one.fewer_times(whole), "shared": one.shared,
    }  # fmt: skip
