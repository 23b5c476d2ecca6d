"""Models read without transformers' modelling code are those that it reads."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.decoders import FORMS, tiny_decoder_model
from tests.support.models import random_batch, random_prompts
from tests.support.reference import ours_of

from softprompt.backbones import load
from softprompt.backbones.base import Backbone
from softprompt.backbones.fingerprint import digest_memory
from softprompt.backbones.load import load_backbone
from softprompt.backbones.stored import StoredModel
from softprompt.errors import BackboneError, SoftpromptError

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


def _tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    """A change of the stored tensors."""

    def changed(folder: Path) -> None:
        file = folder / "model.safetensors"
        tensors = load_file(file)
        change(tensors)
        save_file({name: t.contiguous().clone() for name, t in tensors.items()}, file, {"format": "pt"})

    return changed


def _json(name: str, **values: object) -> Callable[[Path], object]:
    """Fields of one of the folder's JSON files; None takes a field away."""

    def changed(folder: Path) -> None:
        held = {**json.loads((folder / name).read_text()), **values}
        (folder / name).write_text(json.dumps({key: value for key, value in held.items() if value is not None}))

    return changed


def _text(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _bare_names(tensors: dict[str, torch.Tensor]) -> None:
    for name in [n for n in tensors if n.startswith("model.")]:
        tensors[name.removeprefix("model.")] = tensors.pop(name)


NORM = "model.layers.1.input_layernorm.weight"
UP = "model.layers.0.mlp.up_proj.weight"
ODD: dict[str, Callable[[Path], object]] = {
    "names of a base model": _tensors(_bare_names),
    "a weight is missing": _tensors(lambda t: t.pop(NORM)),
    "a weight too many": _tensors(lambda t: t.update({"model.layers.9.input_layernorm.weight": t[NORM]})),
    "another shape": _tensors(lambda t: t.update({NORM: t[NORM][:-1]})),
    "integers": _tensors(lambda t: t.update({UP: t[UP].mul(9).to(torch.int8)})),
    "float8": _tensors(lambda t: t.update({UP: t[UP].to(torch.float8_e4m3fn)})),
    "several types": _tensors(lambda t: t.update({UP: t[UP].bfloat16(), NORM: t[NORM].double()})),
    "tied, and the head stored": _json("config.json", tie_word_embeddings=True),
    "another class": _json("config.json", architectures=["LlamaForSequenceClassification"]),
    "no class": _json("config.json", architectures=None),
    "stretched rope": _json("config.json", rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}),
    "an unknown activation": _json("config.json", hidden_act="no-such"),
    "another activation": _json("config.json", hidden_act="gelu"),
    "quantised by name": _json("config.json", quantization_config={"quant_method": "no-such"}),
    "weights cut short": _cut,
    "ends of another kind": _text("generation_config.json", '{"eos_token_id": "two"}'),
    "several ends": _text("generation_config.json", '{"eos_token_id": [1, 3]}'),
    "no ends": lambda folder: (folder / "generation_config.json").unlink(),
}  # fmt: skip
READ_HERE = {"several types", "several ends", "no ends", "float8", "another activation"}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_read_or_refused_as_by_transformers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path, "llama")
    ODD[name](folder)

    def outcome(made: Callable[[], Backbone]) -> object:
        try:
            found = made()
        except SoftpromptError as error:
            return type(error), error.exit_code
        assert isinstance(found._model, StoredModel) is (name in READ_HERE and made is ours)
        batch = random_batch(found, targets=False)
        return found.fingerprint, found.weights_digest(), found.end_ids, found.generate(batch, None, 4)

    def ours() -> Backbone:
        return load_backbone(folder, dtype="float32")

    assert outcome(ours) == outcome(lambda: through_transformers(folder, monkeypatch, "float32"))


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_generation_config_is_told(text: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, "llama")
    (folder / "generation_config.json").write_text(text)
    with pytest.raises(BackboneError, match=r"could not be loaded: .*generation_config\.json (is not valid|holds no)"):
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
