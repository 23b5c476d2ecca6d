"""A ladder of model sizes (SPoT Figure 1, SharPT Figure 2): one study on several backbones, each with a ledger of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from softprompt import artifacts
from softprompt.errors import UnknownNameError, UsageError
from softprompt.study.settings import Study

T5_LADDER: Mapping[str, tuple[str, ...]] = {
    "t5-lm-adapted": tuple(f"google/t5-{size}-lm-adapt" for size in ("small", "base", "large", "xl", "xxl")),
    "t5-1.1": tuple(f"google/t5-v1_1-{size}" for size in ("small", "base", "large", "xl", "xxl")),
    "sharpt-sizes": tuple(f"google/t5-{size}-lm-adapt" for size in ("base", "large", "xl")),
}
"""The papers' sizes: SPoT's five (prompts are tuned on the LM-adapted ones, models on the original ones), and the three of
SharPT's Figure 2."""
LADDER_METHODS: Mapping[str, str] = {
    "prompt-tuning": "from scratch",
    "spot": "from sources",
    "sharpt": "sharpt",
    "model-tuning": "model_tuning",
    "multitask-tuning": "multitask_model_tuning",
    "lora": "lora",
    "prompt-design": "prompt_design",
}
"""Methods by the names a ladder takes, and the names they have in a study's tables; prompt tuning always runs along."""
FROM_SOURCES = ("spot", "sharpt", "multitask-tuning")
SOURCES = "sources"
"""What a ladder's study calls the mixture of its source tasks."""


def ladder_methods(names: Sequence[str], sources: Sequence[str]) -> tuple[str, ...]:
    """A study's methods by a ladder's names.

    Raises:
        UnknownNameError: no such method.
        UsageError: a method that learns from sources, and none were given.
    """
    for name in names:
        if name not in LADDER_METHODS:
            raise UnknownNameError("method", name, LADDER_METHODS)
        if name in FROM_SOURCES and not sources:
            raise UsageError(f"the method {name} learns from source tasks first: name them with --sources.")
    return tuple(LADDER_METHODS[name] for name in names if name not in ("prompt-tuning", "spot"))


def rungs(names: Sequence[str]) -> tuple[str, ...]:
    """Backbones, the papers' ladders by name replaced by theirs; each once, in order."""
    found = [rung for name in names for rung in T5_LADDER.get(name, (name,))]
    return tuple(dict.fromkeys(found))


def ladder_studies(study: Study, backbones: Sequence[str], folder: Path) -> dict[Path, Study]:
    """The same study on every backbone, by the folder of its ledger.

    Raises:
        UsageError: no backbone.
    """
    if not backbones:
        raise UsageError("a ladder needs at least one backbone.")
    return {folder / folder_name(name): replace(study, backbone=name) for name in backbones}


def folder_name(backbone: str) -> str:
    """A safe folder name for an id or a path; a digest keeps different paths apart."""
    last = "".join(c if c.isalnum() or c in "_-" else "-" for c in Path(backbone).name) or "backbone"
    return f"{last}-{artifacts.sha256_bytes(backbone.encode())[:8]}"
