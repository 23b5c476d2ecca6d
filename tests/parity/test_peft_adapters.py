"""Our folders in PEFT and PEFT's adapters here: the same logits, the same bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.models import random_batch, tiny_backbone

from softprompt.errors import CorruptArtifactError, DataError, NonFiniteError, UsageError
from softprompt.library.formats.peft import import_peft, read_peft, write_peft
from softprompt.library.record import ADAPTER_CONFIG, ADAPTER_MODEL, PromptRecord
from softprompt.library.store import Library
from softprompt.prompts.stack import PromptStack

peft = pytest.importorskip("peft")
KINDS = ("t5", "t5-gated-untied", "encdec", "llama", "gpt2")


def wrapped(backbone: Any, length: int, **config: Any) -> Any:
    task = "CAUSAL_LM" if backbone.kind == "causal" else "SEQ_2_SEQ_LM"
    shape = {"token_dim": 24, "num_layers": 2, "num_attention_heads": 4} if backbone.kind == "encoder-decoder" else {}
    made = peft.PromptTuningConfig(
        task_type=task, num_virtual_tokens=length, prompt_tuning_init="RANDOM", **shape, **config
    )
    return peft.get_peft_model(backbone.hf_model, made)


def peft_logits(model: Any, backbone: Any, batch: Any, length: int) -> list[torch.Tensor]:
    """PEFT's logits of the targets, row by row, without padding."""
    found = []
    for b in range(batch.size):
        ids = batch.input_BT[b, : batch.input_length_B[b]]
        target = batch.target_BD[b, : batch.target_length_B[b]]
        with torch.no_grad():
            if backbone.kind == "causal":
                whole = torch.cat([ids, target])[None]
                logits = model(input_ids=whole, attention_mask=torch.ones_like(whole)).logits[0]
                found.append(logits[length + len(ids) - 1 : length + len(ids) - 1 + len(target)])
            else:
                mask = torch.ones_like(ids)[None]
                found.append(model(input_ids=ids[None], attention_mask=mask, labels=target[None]).logits[0])
    return found


def assert_same_logits(model: Any, backbone: Any, prompt: torch.Tensor) -> None:
    batch = random_batch(backbone, rows=4)
    ours = backbone.logits(batch, PromptStack(prompt[None].float())(torch.zeros(4, dtype=torch.int64)))
    theirs = peft_logits(model, backbone, batch, prompt.shape[0])
    for b, logits in enumerate(theirs):
        torch.testing.assert_close(ours[b, : len(logits)], logits, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_our_folders_load_in_peft(tmp_path: Path, kind: str) -> None:
    backbone = tiny_backbone(kind)
    library = Library(tmp_path / "prompts")
    prompt = torch.randn(6, backbone.hidden_size) * 0.7
    stored = library.add(
        PromptRecord(
            task="mnli",
            prompt=prompt,
            task_embedding=prompt * 0.5,
            backbone_name=backbone.name,
            backbone_fingerprint=backbone.fingerprint,
            backbone_kind=backbone.kind,
            scores={"score": 1.0},
        )
    )
    if kind == "encdec":  # PEFT cannot find this model's sizes by itself; what it is told is not used for prompts
        config = peft.PromptTuningConfig.from_pretrained(stored.place)
        config.num_layers, config.num_attention_heads = 2, 4
        model = peft.PeftModel.from_pretrained(backbone.hf_model, stored.place, adapter_name=stored.name, config=config)
    else:
        model = peft.PeftModel.from_pretrained(backbone.hf_model, stored.place, adapter_name=stored.name)
    model.eval()
    weight = model.prompt_encoder[stored.name].embedding.weight
    assert torch.equal(weight.detach().cpu(), prompt), "encoder only: P rows, bit for bit"
    assert_same_logits(model, backbone, library.load(stored.name, backbone))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("submodules", [None, 1])
def test_prompts_made_by_peft_load_here(tmp_path: Path, kind: str, submodules: int | None) -> None:
    backbone = tiny_backbone(kind)
    if backbone.kind == "encoder-decoder" and submodules is None:
        submodules = 2
    model = wrapped(backbone, 5, num_transformer_submodules=submodules).eval()
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    rows = model.prompt_encoder["default"].embedding.weight.detach()
    assert len(rows) == (5 if backbone.kind == "causal" or submodules == 1 else 10)
    read = read_peft(tmp_path / "adapter")
    assert torch.equal(read.prompt, rows[:5])
    assert read.kind == ("causal" if backbone.kind == "causal" else "t5")
    assert_same_logits(model, backbone, read.prompt)
    stored = import_peft(Library(tmp_path / "prompts"), tmp_path / "adapter", "cr", licence="MIT")
    assert torch.equal(stored.prompt(), read.prompt)
    assert (stored.name, stored.manifest.verified, stored.manifest.licence) == ("cr@0", False, "MIT")


def test_bare_export_round_trip_through_peft(tmp_path: Path) -> None:
    backbone = tiny_backbone("t5")
    prompt = torch.randn(3, backbone.hidden_size)
    write_peft(tmp_path / "out", prompt, backbone_name="tiny", backbone_kind="t5")
    model = peft.PeftModel.from_pretrained(backbone.hf_model, tmp_path / "out")
    model.save_pretrained(tmp_path / "again", save_embedding_layers=False)
    assert torch.equal(read_peft(tmp_path / "again").prompt, prompt)
    narrow = prompt.to(torch.bfloat16)
    write_peft(tmp_path / "narrow", narrow, backbone_name="tiny", backbone_kind="t5")
    assert torch.equal(read_peft(tmp_path / "narrow").prompt, narrow)


def test_our_own_folders_come_whole(tmp_path: Path) -> None:
    record = PromptRecord(
        task="mnli",
        seed=3,
        prompt=torch.randn(2, 4),
        backbone_name="tiny",
        backbone_fingerprint="f" * 64,
        backbone_kind="t5",
    )
    stored = Library(tmp_path / "a").add(record)
    copied = import_peft(Library(tmp_path / "b"), stored.place)
    assert copied.manifest == stored.manifest
    with pytest.raises(UsageError, match="brings its own manifest"):
        import_peft(Library(tmp_path / "b"), stored.place, "other")
    (Path(copied.place) / "manifest.json").unlink()  # what PEFT's own tools would leave of it
    again = import_peft(Library(tmp_path / "c"), copied.place)
    assert (again.name, again.task, again.manifest.seed, again.manifest.verified) == ("mnli@3", "mnli", 3, False)


@pytest.mark.parametrize(
    ("change", "tensor", "error", "words"),
    [
        ({}, torch.full((4, 8), float("nan")), NonFiniteError, "NaN"),
        ({}, torch.ones(4, 8, dtype=torch.int64), DataError, "int64"),
        ({}, torch.ones(3, 8), DataError, "num_virtual_tokens 4"),
        ({}, torch.ones(12, 8), DataError, "num_virtual_tokens 4"),
        ({"task_type": "CAUSAL_LM"}, torch.ones(8, 8), DataError, "damaged"),
        ({"token_dim": 9}, torch.ones(4, 8), DataError, "token_dim 9"),
        ({"num_virtual_tokens": 8_000_000}, torch.ones(4, 8), DataError, "8000000"),
        ({"num_virtual_tokens": True}, torch.ones(4, 8), DataError, "positive number"),
        ({"num_virtual_tokens": "4"}, torch.ones(4, 8), DataError, "positive number"),
        ({"peft_type": "LORA"}, torch.ones(4, 8), DataError, "LORA"),
        ({"task_type": "SEQ_CLS"}, torch.ones(4, 8), DataError, "SEQ_CLS"),
        ({}, torch.ones(4), DataError, r"\[4\]"),
    ],
)
def test_what_peft_lets_pass_is_refused(
    tmp_path: Path, change: dict[str, Any], tensor: torch.Tensor, error: type[Exception], words: str
) -> None:
    from safetensors.torch import save_file

    write_peft(tmp_path / "p", torch.ones(4, 8), backbone_name="tiny", backbone_kind="t5")
    path = tmp_path / "p" / ADAPTER_CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    save_file({"prompt_embeddings": tensor}, tmp_path / "p" / ADAPTER_MODEL)
    with pytest.raises(error, match=words):
        read_peft(tmp_path / "p")


def test_pickles_and_other_files_are_not_opened(tmp_path: Path) -> None:
    write_peft(tmp_path / "p", torch.ones(4, 8), backbone_name="tiny", backbone_kind="t5")
    (tmp_path / "p" / ADAPTER_MODEL).write_bytes(b"not safetensors")
    with pytest.raises(CorruptArtifactError):
        read_peft(tmp_path / "p")
    (tmp_path / "p" / ADAPTER_MODEL).rename(tmp_path / "p" / "adapter_model.bin")
    with pytest.raises(DataError, match="pickle"):
        read_peft(tmp_path / "p")
    with pytest.raises(DataError, match="cannot be read"):
        read_peft(tmp_path / "gone")


@pytest.mark.parametrize("reparameterization", ["MLP", "LSTM"])
@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_p_tuning_is_a_plain_prompt(tmp_path: Path, kind: str, reparameterization: str) -> None:
    """What its encoder gives is what PEFT saves, and what it puts in front."""
    backbone = tiny_backbone(kind)
    config = peft.PromptEncoderConfig(
        task_type="CAUSAL_LM" if kind == "llama" else "SEQ_2_SEQ_LM", num_virtual_tokens=5, encoder_hidden_size=16,
        encoder_reparameterization_type=reparameterization,
    )  # fmt: skip
    model = peft.get_peft_model(backbone.hf_model, config).eval()
    want = model.get_prompt(1)[0].detach()[:5]  # of 2P rows the first P stand before the encoder
    model.save_pretrained(tmp_path / "tuned")
    assert torch.equal(read_peft(tmp_path / "tuned").prompt, want)
    stored = import_peft(Library(tmp_path / "prompts"), tmp_path / "tuned", "films")
    assert torch.equal(stored.prompt(), want)
    assert "P_TUNING" in stored.manifest.origin
    if kind == "llama":
        assert_same_logits(model, backbone, want)
