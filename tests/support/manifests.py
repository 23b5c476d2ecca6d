"""Prompts to store, and manifests signed whatever they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from softprompt.artifacts import json_bytes, sha256_bytes
from softprompt.library.record import PromptRecord

WORDING = {"task": "films", "form": "template", "template": "text: {text}", "columns": ["text"], "label_column": "label",
           "labels": ["bad", "good"], "answers": None, "metrics": ["accuracy"], "chat": None}  # fmt: skip


def record(task: str = "films", **more: Any) -> PromptRecord:
    values: dict[str, Any] = {
        "task": task, "prompt": torch.randn(3, 4), "task_embedding": torch.randn(3, 4), "backbone_name": "tiny",
        "backbone_fingerprint": "f" * 64, "backbone_kind": "t5", "scores": {"score": 12.5, "f1": 3.0},
        "recipe": {"steps": 7, "betas": (0.9, 0.99), "folder": Path("x")}, "tags": ("a", "b"), "versions": {},
    }  # fmt: skip
    return PromptRecord(**{**values, **more})


def signed(content: dict[str, Any]) -> bytes:
    """A manifest's bytes with a digest that fits, whatever stands in it."""
    content = {key: value for key, value in content.items() if key != "manifest_sha256"}
    return json_bytes({**content, "manifest_sha256": sha256_bytes(json_bytes(content))})
