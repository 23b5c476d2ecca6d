"""``softprompt pretrain``: a backbone from plain text, as the embedded one was made."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from softprompt.cli import options as o
from softprompt.cli.app import app, command
from softprompt.cli.output import Answer, lines
from softprompt.cli.progress import say
from softprompt.errors import UnknownNameError, UsageError


@command(app, "pretrain")
def pretrain(
    text: Annotated[Path, typer.Option("--text", help="Folder of text files, a document a line.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", help="Run directory and model; goes on where it stands.", show_default=False)
    ],
    names: Annotated[
        str, typer.Option("--names", help="Files to use, up to the first dot, commas between; all if none.")
    ] = "",
    architecture: Annotated[
        Literal["encoder-decoder", "t5"], typer.Option("--architecture", help="Decoder on a frozen encoder, or a T5.")
    ] = "encoder-decoder",
    objective: Annotated[Literal["reading", "span"], typer.Option("--objective", help="What is learned.")] = "reading",
    steps: Annotated[int, typer.Option("--steps", help="Optimiser steps.")] = 1000,
    batch: Annotated[int, typer.Option("--batch", help="Examples a step.")] = 256,
    seed: o.Seed = 1,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1.")] = "cpu",
    set_: o.Set = None,
) -> Answer:
    """Pre-train a backbone on plain text."""
    from softprompt.pretraining.settings import PretrainSettings
    from softprompt.pretraining.train import pretrain as train

    if not text.is_dir():
        raise UsageError(f"there is no folder {text}: name one with text files, a document a line.")
    settings = PretrainSettings(
        text=text, folder=out, names=o.words(names, "--names") if names else (), architecture=architecture,
        objective=objective, steps=steps, batch=batch, seed=seed, device=device, **_further(PretrainSettings, set_ or []),
    )  # fmt: skip
    model = train(settings, log=_tell)
    return Answer(data={"model": model, "settings": settings.as_json()}, show=lines(f"model: {model}"))


def _further(kind: type[Any], given: list[str]) -> dict[str, Any]:
    """``NAME=VALUE`` pairs as the types of the settings' fields.

    Raises:
        UnknownNameError: no such setting.
        UsageError: not a pair, or a value of another type.
    """
    hints = typing.get_type_hints(kind)
    flags = {"text", "folder", "names", "architecture", "objective", "steps", "batch", "seed", "device"}
    known = [field.name for field in dataclasses.fields(kind) if field.name not in flags]
    found: dict[str, Any] = {}
    for item in given:
        name, sign, value = item.partition("=")
        name = name.strip().replace("-", "_")
        if not sign:
            raise UsageError(f"--set takes NAME=VALUE, got {item!r}.")
        if name not in known:
            raise UnknownNameError("setting", name, known)
        found[name] = _typed(name, value.strip(), hints[name])
    return found


def _typed(name: str, text: str, hint: Any) -> Any:
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise UsageError(f"{name} takes true or false, got {text!r}.")
        return text.lower() == "true"
    for kind in (int, float):
        if hint is kind or hint == (kind | None):
            try:
                return kind(text)
            except ValueError:
                raise UsageError(f"{name} takes a number, got {text!r}.") from None
    return Path(text) if hint == (Path | None) else text


def _tell(line: Mapping[str, Any]) -> None:
    """A measurement as a line of progress."""
    shown = [f"{key} {value:.4f}" if isinstance(value, float) else f"{key} {value}" for key, value in line.items()]
    say(", ".join(shown))
