"""Models read without transformers' modelling code are those that it reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.support.decoders import FORMS, tiny_decoder_model
from tests.support.models import random_batch, random_prompts
from tests.support.reference import ours_of

from softprompt.backbones import load
from softprompt.backbones.fingerprint import digest_memory
from softprompt.backbones.load import load_backbone
from softprompt.backbones.stored import StoredModel
from softprompt.errors import BackboneError

READ = ("llama", "llama-tied-biased", "llama-many-heads", "mistral", "qwen2", "qwen2-window", "qwen3", "gpt2")


def saved(folder: Path, name: str, dtype: torch.dtype = torch.float32, **shape) -> Path:
    model, tokenizer = tiny_decoder_model(name, **shape)
    model.resize_token_embeddings(len(tokenizer) + 8, mean_resizing=False)  # Qwen's tokenizers add some of their own
    model.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def through_transformers(folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: str):
    with monkeypatch.context() as patch:
        patch.setattr(load, "stored_model", lambda *_: None)
        return load_backbone(folder, dtype=dtype)


@pytest.mark.parametrize("name", FORMS)
def test_weights_identity_and_answers_are_those_of_transformers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path, name)
    for dtype in ("float32", "bfloat16"):
        found, other = load_backbone(folder, dtype=dtype), through_transformers(folder, monkeypatch, dtype)
        assert isinstance(found._model, StoredModel) is (name in READ)
        assert found.fingerprint == other.fingerprint
        assert found.weights_digest() == other.weights_digest()
        for what in ("parameter_count", "activation_bytes", "max_length", "end_ids", "precision", "form.plan"):
            mine, theirs = found, other
            for part in what.split("."):
                mine, theirs = getattr(mine, part), getattr(theirs, part)
            assert mine == theirs, what
        batch, stack = random_batch(found), random_prompts(found)
        again = random_prompts(other)
        for mine, theirs in zip(ours_of(found, batch, stack)[1:], ours_of(other, batch, again)[1:], strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_live_module_has_the_same_weights_once(name: str, tmp_path: Path) -> None:
    backbone = load_backbone(saved(tmp_path, name), dtype="float32")
    before = backbone.weights_digest()
    stored = dict(backbone._model.named_parameters())
    live = backbone.hf_model
    assert type(live).__module__.startswith("transformers.")
    assert backbone.hf_model is live
    assert digest_memory(live) == before == backbone.weights_digest()
    assert all(p.data_ptr() == stored[n].data_ptr() and not p.requires_grad for n, p in live.named_parameters())
    batch = random_batch(backbone)
    ids = batch.input_BT[:1, : int(batch.input_length_B[0])]
    ours = backbone.generate(batch.select(torch.tensor([0])), None, 3)
    theirs = live.generate(ids, max_new_tokens=3, do_sample=False, pad_token_id=0)[0, ids.shape[1] :].tolist()
    assert ours[0] == [token for token in theirs if token not in backbone.end_ids][: len(ours[0])]


def test_what_is_not_usual_is_left_to_transformers(tmp_path: Path) -> None:
    """A base model's names, quantised or differently typed weights, other classes: read as before, or refused as before."""
    from safetensors.torch import load_file, save_file

    folder = saved(tmp_path, "gpt2")
    usual = load_backbone(folder, dtype="float32")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    save_file({name.removeprefix("transformer."): t for name, t in tensors.items()}, file, {"format": "pt"})
    bare = load_backbone(folder, dtype="float32")
    assert not isinstance(bare._model, StoredModel)
    batch = random_batch(usual, targets=False)
    assert bare.generate(batch, None, 4) == usual.generate(batch, None, 4)
    del tensors["transformer.h.1.ln_1.weight"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(BackboneError, match=r"lacks stored weights for transformer\.h\.1\.ln_1\.weight"):
        load_backbone(folder, dtype="float32")


def test_a_command_answers_without_transformers_modelling_code(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", "gpt2")
    code = (
        "import json, sys; from softprompt.cli import app\n"
        "code = app.run(['predict', 'the cat', '--backbone', sys.argv[1], '--dtype', 'float32', '--max-new-tokens', '2'])\n"
        "print(json.dumps([code, sorted(m for m in sys.modules if m in "
        "('transformers.modeling_utils', 'torch._dynamo', 'scipy', 'accelerate', 'sympy'))]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []], done.stderr
