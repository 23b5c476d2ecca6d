"""The real vLLM serves exported prompts as our backbone answers. Slow; needs an environment of its own.

scripts/vllm_environment.sh /tmp/vllm && SOFTPROMPT_VLLM=/tmp/vllm pytest -m slow tests/parity/test_vllm_server.py
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
import torch
from tests.support.models import save_tiny

from softprompt.backbones.load import load_backbone
from softprompt.library.formats.lora import export_lora
from softprompt.library.record import PromptRecord
from softprompt.library.store import Library

pytestmark = pytest.mark.slow
TEXTS = ("the cat sees a dog", "a", "One day; 3 dogs!")


@pytest.mark.timeout(900)
def test_three_prompts_in_one_batch_answer_as_ours(tmp_path: Path, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = os.environ.get("SOFTPROMPT_VLLM")
    if not place:
        pytest.skip("SOFTPROMPT_VLLM names no environment with vLLM (scripts/vllm_environment.sh makes one)")
    monkeypatch.setattr(sys, "path", [str(repo / "benchmarks"), *sys.path])
    import serve_vllm

    folder = save_tiny("llama", tmp_path / "llama", width=128)
    backbone = load_backbone(str(folder), dtype="float32")
    library, prompts = Library(tmp_path / "library"), {}
    for seed, name in enumerate(("films", "music", "late")):
        prompts[name] = torch.randn(5, 128, generator=torch.Generator().manual_seed(seed))
        library.add(
            PromptRecord(
                task=name, name=name, prompt=prompts[name], backbone_name=str(folder), backbone_kind="causal",
                backbone_fingerprint=backbone.fingerprint,
            )
        )  # fmt: skip
    out = tmp_path / "out"
    export_lora(backbone, [library.get(name) for name in ("films", "music")], out, model=str(folder))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    requests = [{"model": name, "prompt": text} for text in TEXTS for name in prompts]
    with serve_vllm.serving(out, Path(place), port, tmp_path / "vllm.log", length=256):
        export_lora(backbone, [library.get("late")], out, model=str(folder))
        serve_vllm.load_adapter(port, "late", out / "adapters" / "late")
        theirs = serve_vllm.asked(Path(place) / "bin" / "python", port, requests, 9)["answers"]
    ours, _ = serve_vllm.our_answers(backbone, requests, prompts)
    assert [text.strip() for text in theirs] == ours
    assert len(set(ours)) > 3, "the prompts decide the answers"
