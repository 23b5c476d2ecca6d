"""Backbones whose weights are published as ``pytorch_model.bin`` only (T5 1.1 and its LM-adapted relatives): made into
safetensors once.

A ``.bin`` is a pickle. It is read by ``torch.load(weights_only=True)``, which builds tensors and runs nothing of the file,
and never again: what loads is the safetensors copy, in the cache or where ``softprompt convert`` put it. Names, dtypes and
values are kept; tensors that a model ties are written once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softprompt import waits
from softprompt.backbones.converted import converted_folder, digest_cache
from softprompt.backbones.fingerprint import TIED_SUFFIXES, digest_file
from softprompt.errors import BackboneError, CorruptArtifactError, UnknownNameError

FILES = ("pytorch_model*.bin", "pytorch_model.bin.index.json")
_BESIDE = ("*.json", "*.model", "*.txt", "*.jinja")
# How Google names the LM-adapted T5 1.1 by the framework it is stored in, and its copy for PyTorch.
_T5X, _MESH, _ADAPTED = "t5_1_1_lm100k_", "t5.1.1.lm100k.", "google/t5-{size}-lm-adapt"
_SIZES = ("small", "base", "large", "xl", "xxl")
_log = logging.getLogger(__name__)


def bin_files(folder: Path) -> list[Path]:
    """The pickled weights of a folder; empty where there are none."""
    return sorted(folder.glob(FILES[0]))


def converted_bin(folder: Path, name: str, place: Path | None = None) -> Path:
    """The safetensors copy of a folder with pickled weights, in the cache; made, and said so, at the first load.

    Args:
        folder: has ``config.json`` and ``pytorch_model*.bin``.
        name: how messages call it.
        place: a folder to write instead of that in the cache.

    Raises:
        CorruptArtifactError: a file is damaged, or is no dictionary of tensors.
    """
    files = bin_files(folder)
    digests = {file.name: digest_file(file, digest_cache()) for file in files}
    texts = {path.name: path.read_bytes() for path in _beside(folder)}
    identity = [sorted(digests.items()), sorted((n, hashlib.sha256(t).hexdigest()) for n, t in texts.items())]

    def make(target: Path) -> Mapping[str, Any]:
        shown = ", ".join(f"{n} (sha256 {d[:12]}...)" for n, d in digests.items())
        _log.warning("backbone %s: converting %s to safetensors, once.", name, shown)
        return convert(folder, target, digests)

    return converted_folder(f"bin-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]}", make, place)


def convert(folder: Path, target: Path, digests: Mapping[str, str]) -> dict[str, Any]:
    """Write the safetensors copy of a folder into an empty one: a file for each ``.bin``, config and tokenizer beside.

    Args:
        folder: has ``config.json`` and ``pytorch_model*.bin``.
        target: an empty folder.
        digests: sha256 of each ``.bin`` by name, recorded.

    Returns:
        what a record says of the source.

    Raises:
        CorruptArtifactError: a file is damaged, or is no dictionary of tensors.
    """
    from safetensors.torch import save_file

    files = bin_files(folder)
    place: dict[str, str] = {}
    for number, file in enumerate(waits.each("converting weights (files), once", files), start=1):
        tensors = _plain(_tensors(file))
        name = "model.safetensors" if len(files) == 1 else f"model-{number:05d}-of-{len(files):05d}.safetensors"
        save_file(tensors, target / name, metadata={"format": "pt"})
        place |= dict.fromkeys(tensors, name)
    if len(files) > 1:
        index = {"metadata": {}, "weight_map": place}
        (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    for path in _beside(folder):
        shutil.copyfile(path, target / path.name)
    return {"source": folder.name, "sha256": dict(digests)}


def refuse_other_frameworks(name: str, folder: Path | None = None) -> None:
    """One sentence for T5 checkpoints of Google's own frameworks, by their names or by what lies in the folder.

    Raises:
        UnknownNameError: the name is that of an LM-adapted T5 in T5X or Mesh TensorFlow.
        BackboneError: the folder is such a checkpoint.
    """
    short = name.rstrip("/").rpartition("/")[2]
    for framework, prefix in (("T5X (JAX)", _T5X), ("Mesh TensorFlow", _MESH)):
        size = short.removeprefix(prefix)
        if short.startswith(prefix) and size in _SIZES and folder is None:
            raise UnknownNameError(
                "backbone", name, [_ADAPTED.format(size=size)], f"That is its name in {framework}; the same weights for "
                f"PyTorch are {_ADAPTED.format(size=size)}.",
            )  # fmt: skip
    if folder is None or (folder / "config.json").is_file():
        return
    mesh = any(folder.glob("model.ckpt-*.index"))
    t5x = (folder / "checkpoint").is_file() and any(folder.glob("target.*"))
    if mesh or t5x:
        raise BackboneError(
            f"{folder} is a {'Mesh TensorFlow' if mesh else 'T5X (JAX)'} checkpoint, which PyTorch cannot read: take its "
            "copy on the hub (google/t5-SIZE-lm-adapt or google/t5-v1_1-SIZE), or convert it with transformers' script."
        )


def _beside(folder: Path) -> list[Path]:
    found = {path for pattern in _BESIDE for path in folder.glob(pattern)}
    return sorted(path for path in found if path.is_file() and not path.name.endswith(".index.json"))


def _tensors(file: Path) -> Mapping[str, Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file) or None)
    except Exception as error:  # a pickle from anywhere: torch and the unpickler raise many classes
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise CorruptArtifactError(
            f"{file.name} is not a whole file of weights, or holds more than tensors ({reason[:160]}): fetch it again."
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise CorruptArtifactError(f"{file.name} holds more than tensors by name: it is no file of a model's weights.")
    return state


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share no memory: what a model ties again when it loads is left out, the rest is copied."""
    owners: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    kept: dict[str, Tensor] = {}
    for name in _tied_last(list(state)):
        tensor = state[name]
        where = (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()))
        if where in owners and name.endswith(TIED_SUFFIXES):
            continue
        shared = where in owners or tensor.untyped_storage().nbytes() != tensor.nbytes
        owners.setdefault(where, name)
        kept[name] = tensor.clone().contiguous() if shared else tensor.contiguous()
    return {name: kept[name] for name in sorted(kept)}


def _tied_last(names: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda name: (name.endswith(TIED_SUFFIXES), name))
