"""``softprompt convert``: a backbone in another format as safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softprompt.cli import opening
from softprompt.cli import options as o
from softprompt.cli.app import app, command
from softprompt.cli.output import AT_HAND, Answer, named


@command(app, "convert", "softprompt convert model.gguf", "softprompt convert google/t5-base-lm-adapt t5-safetensors")
def convert(
    source: Annotated[
        str, typer.Argument(help="Folder or hub id with pytorch_model.bin, or a GGUF file.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Argument(help="New folder; if not given, the cache, where --backbone SOURCE looks.", show_default=False),
    ] = None,
    revision: o.Revision = None,
) -> Answer:
    """Convert a backbone in another format to safetensors."""
    import json

    from softprompt.backbones.converted import RECORD
    from softprompt.backbones.load import convert_backbone

    opening.quiet_transformers()
    folder = convert_backbone(source, out, revision=revision)
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    data = {
        "folder": folder,
        "bytes": size,
        "source": record["source"],
        "sha256": record["sha256"],
        "tensors": record["weights"],
    }
    shown = {
        "folder": folder,
        "safetensors": f"{size / 1e6:,.0f} MB, sha256 of the tensors {record['weights']}",
        "made from": ", ".join(f"{n} {d}" for n, d in _sources(record).items()),
    }
    return Answer(data=data, show=named(shown), next=_after(out or source))


def _after(backbone: str | Path) -> list[tuple[object, ...]]:
    """Whether it tunes, and how it does without."""
    named = ("--backbone", backbone)
    return [("train", AT_HAND, *named), ("prompt-design", "--task", AT_HAND, *named)]


def _sources(record: dict[str, str | dict[str, str]]) -> dict[str, str]:
    digest = record["sha256"]
    return digest if isinstance(digest, dict) else {str(record["source"]): digest}
