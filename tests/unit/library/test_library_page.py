"""The Python on docs/library.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from tests.support.models import corpus, tiny_backbone


def test_every_block_runs(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    backbone = tiny_backbone("t5")
    ids = backbone.tokenize_inputs(corpus(1))
    given = {
        "backbone": backbone,
        "prompt_PH": torch.randn(4, backbone.hidden_size),
        "early_PH": torch.randn(4, backbone.hidden_size),
        "target_PH": torch.randn(4, backbone.hidden_size),
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.ones(1, len(ids[0]), dtype=torch.int64),
    }
    blocks = re.findall(r"```python\n(.*?)```", (repo / "docs" / "library.md").read_text(), re.S)
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, "docs/library.md", "exec"), given)
