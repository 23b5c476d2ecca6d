"""PEFT prompt-tuning and P-tuning adapters, in and out. Library folders are such adapters already; this reads those of others.

What PEFT itself lets pass is refused here: NaN, integers, a shape that is not the config's, a config that asks for more
than the file holds, pickled weights. PEFT allocates 2P rows for encoder-decoders and trains the first P: those count.

Letters: P prompt tokens, H width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from softprompt import artifacts
from softprompt.errors import DataError, UsageError
from softprompt.library.formats.adapter import adapter_config
from softprompt.library.manifest import Manifest
from softprompt.library.record import ADAPTER_CONFIG, ADAPTER_MODEL, MANIFEST, PROMPT_TENSOR, PromptRecord, check_prompt
from softprompt.library.store import Library, StoredPrompt

# P-tuning trains an encoder of the prompt; what PEFT saves is the encoder's output, a prompt as any other.
_SOFT_PROMPTS = ("PROMPT_TUNING", "P_TUNING")
_KINDS = {"SEQ_2_SEQ_LM": "t5", "CAUSAL_LM": "causal"}


@dataclass(frozen=True, kw_only=True, eq=False)
class PeftPrompt:
    """A prompt read from a PEFT adapter.

    Attributes:
        prompt: float [P, H], in the stored dtype.
        base_model: the config's ``base_model_name_or_path``; empty where it has none.
        kind: ``causal`` or ``t5``, from the config's task type.
        config: the whole config.
    """

    prompt: Tensor
    base_model: str
    kind: str
    config: Mapping[str, Any]


def read_peft(folder: str | Path) -> PeftPrompt:
    """Read an adapter folder made by ``PeftModel.save_pretrained`` (or by this package).

    Raises:
        DataError: no adapter, another kind of adapter, pickled weights, or a prompt of wrong dtype or shape.
        NonFiniteError: the prompt holds NaN or infinity.
        CorruptArtifactError: a file that is not JSON or not safetensors.
    """
    root = Path(folder)
    config = artifacts.read_json(root / ADAPTER_CONFIG)
    if not isinstance(config, dict) or config.get("peft_type") not in _SOFT_PROMPTS:
        found = config.get("peft_type") if isinstance(config, dict) else None
        raise DataError(
            f"{root / ADAPTER_CONFIG} is for peft_type {found!r}; soft prompts are {' and '.join(_SOFT_PROMPTS)}."
        )
    kind = _KINDS.get(str(config.get("task_type")))
    if kind is None:
        raise DataError(
            f"{root / ADAPTER_CONFIG} has task_type {config.get('task_type')!r}; SEQ_2_SEQ_LM and CAUSAL_LM are read."
        )
    if not (root / ADAPTER_MODEL).is_file():
        pickled = " (adapter_model.bin is a pickle and is not opened)" if (root / "adapter_model.bin").exists() else ""
        raise DataError(f"{root} holds no {ADAPTER_MODEL}{pickled}; save the adapter with safe_serialization=True.")
    prompt = artifacts.read_tensors(root / ADAPTER_MODEL, [PROMPT_TENSOR])[PROMPT_TENSOR]
    check_prompt(prompt, f"{root / ADAPTER_MODEL}")
    base_model = config.get("base_model_name_or_path")
    return PeftPrompt(
        prompt=_trained_rows(prompt, config, root),
        base_model=base_model if isinstance(base_model, str) else "",
        kind=kind,
        config=config,
    )


def _trained_rows(prompt: Tensor, config: Mapping[str, Any], root: Path) -> Tensor:
    """The first P rows, where the file holds P or 2P."""
    length = config.get("num_virtual_tokens")
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        raise DataError(f"{root / ADAPTER_CONFIG} has num_virtual_tokens {length!r}; a positive number is needed.")
    width = config.get("token_dim")
    rows = int(prompt.shape[0])
    allowed = (length, 2 * length) if config.get("task_type") == "SEQ_2_SEQ_LM" else (length,)
    if rows not in allowed or (width is not None and width != prompt.shape[1]):
        raise DataError(
            f"{root / ADAPTER_MODEL} holds a prompt {list(prompt.shape)} and its config says num_virtual_tokens {length}, "
            f"token_dim {width}; the adapter is damaged or not plain prompt tuning."
        )
    return prompt[:length].clone()


def peft_record(folder: str | Path, task: str, *, seed: int = 0, name: str | None = None, **more: Any) -> PromptRecord:
    """An adapter as a record for `Library.add`; it has no fingerprint and stays ``unverified``.

    Args:
        folder: the adapter's folder.
        task: what it was tuned on (PEFT does not say).
        seed: of its run, if known.
        name: name in the library.
        more: further fields of `PromptRecord` (scores, licence, tags, ...).
    """
    read = read_peft(folder)
    values: dict[str, Any] = {
        "backbone_name": read.base_model or "unknown",
        "backbone_fingerprint": None,
        "backbone_kind": read.kind,
        "origin": f"PEFT {read.config['peft_type']} adapter {Path(folder).name}",
        "versions": {"peft": str(read.config["peft_version"])} if read.config.get("peft_version") else {},
    }
    return PromptRecord(task=task, seed=seed, prompt=read.prompt, name=name, **{**values, **more})


def import_peft(
    library: Library, folder: str | Path, task: str | None = None, *, replace: bool = False, **more: Any
) -> StoredPrompt:
    """Add an adapter folder to a library. One of our own folders (with a manifest) comes whole, identity included.

    Args:
        library: where to.
        folder: the adapter's folder.
        task: what it was tuned on; the folder's name where not given.
        replace: whether a prompt of its name is replaced.
        more: see `peft_record`.
    """
    root = Path(folder)
    if (root / MANIFEST).is_file():
        if task is not None or any(value is not None for value in more.values()):
            raise UsageError(
                f"{root} brings its own manifest, with task, name and licence: import it without saying any, or remove "
                f"{MANIFEST} to have it taken as a bare, unverified adapter."
            )
        # The folder may have any name: that of a download is a commit's. Only the files of the manifest are taken.
        data = artifacts.read_bytes(root / MANIFEST)
        manifest = Manifest.from_bytes(data, str(root / MANIFEST))
        files = {file: artifacts.read_bytes(root / file, sha256=digest) for file, digest in manifest.files.items()}
        library.folders.write(manifest.name, {**files, MANIFEST: data}, replace=replace)
        return library.get(manifest.name)
    found = re.fullmatch(r"(.+)@(\d+)", root.resolve().name)  # our own naming, <task>@<seed>
    if found and task is None:
        task = found[1]
        more.setdefault("seed", int(found[2]))
    return library.add(peft_record(root, task or root.resolve().name, **more), replace=replace)


def write_peft(
    folder: str | Path, prompt: Tensor, *, backbone_name: str, backbone_kind: str, replace: bool = False
) -> None:
    """Write a bare PEFT adapter: config and weights, nothing else.

    Args:
        folder: to be made.
        prompt: float [P, H]; dtype and bits are kept.
        backbone_name: the hub id or folder PEFT is to load.
        backbone_kind: ``t5``, ``encoder-decoder`` or ``causal``.
        replace: whether a folder that stands there is replaced.

    Raises:
        UsageError: the folder exists.
        DataError, NonFiniteError: not a prompt.
    """
    check_prompt(prompt, "the prompt to export")
    length, width = prompt.shape
    config = adapter_config(backbone_name, backbone_kind, int(length), int(width))
    files = {
        ADAPTER_CONFIG: artifacts.json_bytes(config),
        ADAPTER_MODEL: artifacts.tensor_bytes({PROMPT_TENSOR: prompt}),
    }
    artifacts.write_folder(folder, files, replace=replace)
