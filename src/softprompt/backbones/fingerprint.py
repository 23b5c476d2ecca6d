"""The identity of a backbone: stored weights, canonical architecture found from the tensors, tokenizer.

Not the text of a config file, and not the dtype in which the weights are held in memory: the same stored model has the
same fingerprint however it is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from softprompt import waits
from softprompt.artifacts import sha256_file
from softprompt.errors import BackboneError

_FORMAT = "softprompt-fingerprint-1"
# Settings that change what a model computes and cannot be read off its tensors' shapes.
_CONFIG_KEYS = (
    "model_type", "num_heads", "num_attention_heads", "num_key_value_heads", "n_head", "head_dim", "d_kv",
    "dense_act_fn", "hidden_act", "activation_function", "layer_norm_epsilon", "layer_norm_eps", "rms_norm_eps",
    "relative_attention_max_distance", "rope_theta", "rope_parameters", "sliding_window", "layer_types",
    "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping", "decoder_start_token_id",
    "eos_token_id", "pad_token_id",
)  # fmt: skip
TIED_SUFFIXES = ("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_BUFFER = 1 << 22
_REMEMBERED = 100  # files whose digests the cache keeps


def _tensor_bytes(tensor: Tensor) -> Any:
    return tensor.detach().to("cpu").contiguous().view(-1).view(torch.uint8).numpy()


def digest_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 hex over names, dtypes, shapes and bytes; tensors are taken in the order of their names."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        hasher.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        hasher.update(_tensor_bytes(tensor))
    return hasher.hexdigest()


def digest_memory(model: Any) -> str:
    """sha256 hex over all parameters and buffers of a module as they are in memory; tied ones count once."""
    named: Mapping[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return digest_tensors(named.items())


def digest_stored(files: Iterable[Path], cache: Path | None = None) -> str:
    """sha256 hex over the tensors of safetensors files as stored; how they are split into files does not matter.

    Args:
        files: the stored weights.
        cache: a JSON file that remembers digests by path, size and modification time; None for none.
    """
    known = _read_cache(cache)
    tensors: dict[str, str] = {}
    for path in files:
        stat = path.stat()
        key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
        if key not in known:
            known[key] = _file_tensors(path)
            _write_cache(cache, known)
        tensors.update(known[key])
    # A tied tensor may or may not be stored a second time: the same model is the same either way.
    for name in sorted(tensors):
        others = {value for other, value in tensors.items() if other != name}
        if name.endswith(TIED_SUFFIXES) and tensors[name] in others:
            del tensors[name]
    return hashlib.sha256(json.dumps(sorted(tensors.items())).encode()).hexdigest()


def digest_file(path: Path, cache: Path | None = None) -> str:
    """sha256 hex of a whole file; remembered like `digest_stored`'s."""
    stat = path.stat()
    key = f"file|{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    known = _read_cache(cache)
    if key not in known:
        known[key] = {"sha256": sha256_file(path)}
        _write_cache(cache, known)
    return known[key]["sha256"]


def _file_tensors(path: Path) -> dict[str, str]:
    """Name -> "dtype|shape|sha256" of every tensor of a safetensors file."""
    from softprompt.errors import CorruptArtifactError

    found: dict[str, str] = {}
    whole = path.stat().st_size
    with path.open("rb") as stream:
        try:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size))
            entries = {k: v for k, v in header.items() if k != "__metadata__"}
            for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"][0]):
                begin, end = entry["data_offsets"]
                stream.seek(8 + size + begin)
                found[name] = f"{entry['dtype']}|{entry['shape']}|{_stream_digest(stream, end - begin, whole)}"
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
            raise CorruptArtifactError(f"{path} is not a whole safetensors file: fetch it again.") from error
    return found


def _stream_digest(stream: BinaryIO, size: int, whole: int) -> str:
    """sha256 of the next ``size`` bytes of a file of ``whole`` bytes."""
    hasher = hashlib.sha256()
    while size > 0:
        block = stream.read(min(_BUFFER, size))
        if not block:
            raise ValueError("the file ends early")
        hasher.update(block)
        size -= len(block)
        waits.tell("hashing weights (MB), once", -(-stream.tell() // 2**20), -(-whole // 2**20))
    return hasher.hexdigest()


def _read_cache(cache: Path | None) -> dict[str, dict[str, str]]:
    if cache is None or not cache.is_file():
        return {}
    try:
        found = json.loads(cache.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and all(isinstance(v, dict) for v in found.values()) else {}


def _write_cache(cache: Path | None, known: Mapping[str, dict[str, str]]) -> None:
    if cache is None:
        return
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        part = cache.with_name(f"{cache.name}.{id(known)}.part")
        part.write_text(
            json.dumps(dict(list(known.items())[-_REMEMBERED:]))
        )  # the last ones: all are read at each start
        part.replace(cache)
    except OSError:
        return  # a cache that cannot be written costs time, nothing else


def architecture(model: Any) -> dict[str, Any]:
    """What the tensors do not say by themselves, and their shapes: the canonical architecture."""
    config = model.config
    parts = {"": config, "encoder": getattr(config, "encoder", None), "decoder": getattr(config, "decoder", None)}
    settings = {
        f"{part}.{key}".lstrip("."): getattr(found, key)
        for part, found in parts.items()
        if found is not None and not isinstance(found, dict)
        for key in _CONFIG_KEYS
        if getattr(found, key, None) is not None
    }
    shapes = {name: list(p.shape) for name, p in model.named_parameters()}
    return {"settings": settings, "shapes": shapes}


def digest_tokenizer(tokenizer: Any) -> str:
    """sha256 hex over what text becomes: vocabulary, special tokens, and the ids of fixed probe texts."""
    probes = ["The quick brown fox, jumps!", "Élan vital naïve", "  two  spaces\nline", "0.5% of $1,234", "日本語"]
    vocab = sorted(tokenizer.get_vocab().items())
    special = {key: str(value) for key, value in sorted(tokenizer.special_tokens_map.items())}
    ids = [tokenizer(text)["input_ids"] for text in probes]
    return hashlib.sha256(json.dumps([vocab, special, ids], ensure_ascii=True).encode()).hexdigest()


def fingerprint_of(model: Any, tokenizer: Any, weights: str) -> str:
    """The fingerprint, sha256 hex.

    Args:
        model: the Hugging Face module.
        tokenizer: its tokenizer.
        weights: digest of the stored weights (``digest_stored``, or ``digest_tensors`` where they were never stored).
    """
    if len(weights) != 64:
        raise BackboneError("a fingerprint needs a sha256 of the stored weights.")
    parts = [_FORMAT, weights, architecture(model), digest_tokenizer(tokenizer)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
