"""The loop: both architectures run, a resumed run equals one that never stopped, settings are checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from embedded_backbone import PretrainSettings, adapters, attention
from embedded_backbone.__main__ import main, parser
from embedded_backbone.card import command
from embedded_backbone.model import IGNORED, compose
from embedded_backbone.train import pretrain
from softprompt.backbones import builtin
from softprompt.errors import UsageError

pytestmark = pytest.mark.slow  # how the embedded backbone was trained: nothing that ships runs it


def small(text: Path, folder: Path, encoder: Path, **more: object) -> PretrainSettings:
    options: dict[str, object] = {
        "text": text, "folder": folder, "encoder": str(encoder), "layers": 1, "heads": 4, "feed_forward": 64, "steps": 4,
        "batch": 24, "micro_batch": 12, "inputs_tokens": 200, "targets_tokens": 12, "slot_rows": 2, "candidates": 50,
        "warm_up": 1, "validate_every": 2, "save_every": 2, "validation_examples": 24,
    }  # fmt: skip
    return PretrainSettings(**(options | more))  # type: ignore[arg-type]


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.slow
def test_resume_equals_never_having_stopped(text_folder: Path, encoder_folder: Path, tmp_path: Path, rank: int) -> None:
    whole = pretrain(small(text_folder, tmp_path / "whole", encoder_folder, rank=rank))
    halves = small(text_folder, tmp_path / "halves", encoder_folder, rank=rank)
    pretrain(halves, stop_after=2)
    parts = pretrain(halves)
    first, second = (load_file(folder / "decoder.safetensors") for folder in (whole, parts))
    assert first.keys() == second.keys()
    assert any(name.startswith("encoder.") for name in first) == bool(rank)
    assert all(torch.equal(first[name], second[name]) for name in first)
    one, two = ((tmp_path / name / "state" / "tensors.safetensors").read_bytes() for name in ("whole", "halves"))
    assert one == two


def test_writes_metrics_card_and_no_paths(text_folder: Path, encoder_folder: Path, tmp_path: Path) -> None:
    lines: list[dict[str, object]] = []
    folder = pretrain(small(text_folder, tmp_path / "run", encoder_folder), log=lines.append)
    written = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert written == lines
    held = [line for line in written if line["part"] == "held out"]
    assert [line["step"] for line in held] == [2, 4]
    assert all(line["tokens_per_s"] > 0 for line in held)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "prose.txt" in card
    assert str(tmp_path) not in card + (folder / "training.json").read_text(encoding="utf-8")
    names = set(load_file(folder / "decoder.safetensors"))
    assert not any("word_embeddings" in name for name in names)


def test_the_encoder_is_left_alone_and_slots_learn(text_folder: Path, encoder_folder: Path, tmp_path: Path) -> None:
    settings = small(text_folder, tmp_path / "run", encoder_folder)
    pretrain(settings)
    state = load_file(settings.folder / "state" / "tensors.safetensors")
    assert not any(name.startswith("weight.model.encoder") for name in state)
    assert "weight.slots.rows_SRH" in state


@pytest.mark.parametrize("objective", ["span", "reading"])
@pytest.mark.slow
def test_t5_trains_and_opens_in_plain_transformers(text_folder: Path, tmp_path: Path, objective: str) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    settings = PretrainSettings(
        text=text_folder, folder=tmp_path, architecture="t5", objective=objective, layers=1, width=32, heads=2,  # type: ignore[arg-type]
        feed_forward=64, vocabulary=120, steps=3, batch=8, micro_batch=4, inputs_tokens=48, targets_tokens=32, slot_rows=0,
        adapt=0.4, warm_up=1, validate_every=3, validation_examples=8,
    )  # fmt: skip
    folder = pretrain(settings)
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("the river was high", return_tensors="pt")["input_ids"]
    assert ids[0, -1] == tokenizer.eos_token_id
    assert "river" in tokenizer.decode(ids[0], skip_special_tokens=True)
    assert model(input_ids=ids, labels=ids).loss.isfinite()


def test_low_rank_parts_add_up_to_a_plain_encoder(encoder_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from transformers import BertModel

    adapted, plain = (BertModel.from_pretrained(encoder_folder, add_pooling_layer=False).eval() for _ in range(2))
    adapters.adapt(adapted, 2)
    for module in adapted.modules():
        if isinstance(module, adapters.LowRank):
            torch.nn.init.normal_(module.adapter_B, std=0.05)
            for part in (module.adapter_A, module.adapter_B):
                part.data = part.data.bfloat16().float()
    save_file(adapters.tensors(adapted), tmp_path / "parts.safetensors")
    ids = torch.randint(104, 1200, (2, 7))
    before = plain(input_ids=ids)[0]
    builtin.add_low_rank(plain, tmp_path / "parts.safetensors")
    after = plain(input_ids=ids)[0]
    torch.testing.assert_close(after, adapted(input_ids=ids)[0], rtol=1e-4, atol=1e-5)
    assert (after - before).abs().max() > 1e-3


def test_attention_equals_the_stock_one(encoder_folder: Path) -> None:
    from transformers import BertModel

    encoder = BertModel.from_pretrained(encoder_folder, add_pooling_layer=False).eval()
    model = compose(encoder, layers=2, positions=16, feed_forward=64, heads=4).eval()
    ids, mask = torch.randint(104, 1200, (3, 9)), torch.ones(3, 9, dtype=torch.long)
    mask[1, 6:] = 0
    given = {"attention_mask": mask, "decoder_input_ids": torch.randint(104, 1200, (3, 5))}
    expected = model(input_ids=ids, **given).logits
    attention.use(model)
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids, **given).logits, expected, rtol=1e-4, atol=1e-5)
    embeds = model.encoder.get_input_embeddings()(ids).detach().requires_grad_(True)
    torch.testing.assert_close(model(inputs_embeds=embeds, **given).logits, expected, rtol=1e-4, atol=1e-5)


def test_settings_refuse_what_cannot_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="steps is 0"):
        PretrainSettings(text=tmp_path, folder=tmp_path, steps=0)
    with pytest.raises(UsageError, match="sentinels"):
        PretrainSettings(text=tmp_path, folder=tmp_path, objective="span")
    with pytest.raises(UsageError, match="positions"):
        PretrainSettings(text=tmp_path, folder=tmp_path, targets_tokens=64)


def test_rate_rises_stays_and_falls(tmp_path: Path) -> None:
    settings = PretrainSettings(text=tmp_path, folder=tmp_path, steps=100, warm_up=10, decay=0.5)
    assert settings.rate(0) == pytest.approx(0.1)
    assert settings.rate(30) == 1.0
    assert settings.rate(99) == pytest.approx(0.069, abs=1e-3)


def test_the_card_s_command_parses(tmp_path: Path) -> None:
    settings = PretrainSettings(
        text=tmp_path / "text", folder=tmp_path / "run", names=("a", "b"), steps=7, compile=True
    )
    parsed = vars(parser().parse_args(command(settings).split()[2:]))
    assert parsed["names"] == ["a", "b"]
    assert parsed["steps"] == 7
    assert parsed["compile"] is True


def test_main_reports_errors_by_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--text", str(tmp_path), "--folder", str(tmp_path / "run")]) == 2
    assert "error:" in capsys.readouterr().err


def test_ignored_is_what_torch_ignores() -> None:
    assert torch.nn.functional.cross_entropy(torch.zeros(2, 3), torch.tensor([1, IGNORED])).isfinite()
