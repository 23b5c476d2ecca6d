"""Drawings are written whole, and the pages' numbers are those the code computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from softprompt.backbones.shapes import T5_SIZES
from softprompt.errors import UsageError
from softprompt.methods.counts import count
from softprompt.methods.sharpt.relations import Relations
from softprompt.report.skills import blocks_of, relations_heatmap, skill_use_curve


@pytest.mark.slow
def test_figures_are_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = Relations(
        sources=("a", "b"), targets=("c",), cosine_AB=torch.tensor([[0.2], [0.9]], dtype=torch.float64),
        use={"a": (1.0,), "b": (1.0,), "c": (1.0,)}, rows={"a": 1, "b": 1, "c": 1},
    )  # fmt: skip
    assert relations_heatmap(found, tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    named = replace(found, categories={"a": "nli", "b": "sentiment", "c": "sentiment"})
    drawn = relations_heatmap(named, tmp_path / "map.svg").read_text()
    assert all(word in drawn for word in ("nli", "sentiment"))
    history = [{"run": "space", "step": s, "used": 5 + s, "dead": 2, "perplexity": 4.0 + s} for s in range(4)]
    assert b"<svg" in skill_use_curve(history, tmp_path / "use.svg").read_bytes()
    with pytest.raises(UsageError, match="no measurement"):
        skill_use_curve([], tmp_path / "none.png")


def test_relations_are_nested_by_category() -> None:
    cosine = torch.tensor([[0.1, 0.2], [0.9, 0.1], [0.3, 0.6], [0.2, 0.4]], dtype=torch.float64)
    found = Relations(
        sources=("a", "b", "c", "d"), targets=("x", "y"), cosine_AB=cosine, use={}, rows={},
        categories={"a": "nli", "b": "qa", "c": "nli", "d": "qa", "x": "nli", "y": "qa"},
    ).nested()  # fmt: skip
    assert found.sources == ("b", "d", "c", "a")
    assert found.targets == ("x", "y")
    assert found.nearest("x")[0] == ("b", pytest.approx(0.9))
    assert [found.cosine_AB[i, 1].item() for i in range(4)] == [0.1, 0.4, 0.6, 0.2]
    assert blocks_of([found.categories[name] for name in found.sources]) == [("qa", 0, 2), ("nli", 2, 4)]


def test_the_pages_parameter_counts_are_computed(repo: Path) -> None:
    baselines = (repo / "docs" / "baselines.md").read_text(encoding="utf-8")
    for shape in T5_SIZES.values():
        prompt, model = count("prompt-tuning", shape), count("model-tuning", shape)
        times = round(prompt.fewer_times(model))
        assert f"| {shape.parameters:,} | {prompt.tuned:,} | {times:,} times more |" in baselines
    sharpt = (repo / "docs" / "sharpt.md").read_text(encoding="utf-8")
    for name in ("base", "large", "xl"):
        counts = count("sharpt", T5_SIZES[f"t5-{name}"], prompt_length=64, skill_count=256, encoder_width=768)
        assert f"| T5 1.1 {name} | {counts.tuned:,} | {counts.percent:.2f} % |" in sharpt
