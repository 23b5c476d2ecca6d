"""The files of a prompt's folder: an exact PEFT prompt-tuning adapter, a card, a task embedding and the manifest.

The adapter holds one tensor ``prompt_embeddings`` [P, H] and is for the encoder alone (``num_transformer_submodules``
is 1; PEFT's own default for encoder-decoders is 2, of which it uses the first half).
"""

from __future__ import annotations

import json
from typing import Any

import torch

from softprompt.artifacts import json_bytes, sha256_bytes, tensor_bytes
from softprompt.library.manifest import (
    ADAPTER_CONFIG,
    ADAPTER_MODEL,
    CARD,
    EMBEDDING_TENSOR,
    MANIFEST,
    PROMPT_TENSOR,
    TASK_EMBEDDING,
    TASK_VECTORS,
    UNSTATED_LICENCE,
    Manifest,
    PromptRecord,
    make_manifest,
)
from softprompt.library.similarity import METRICS, task_vector


def folder_files(record: PromptRecord) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest and all files of a prompt's folder, the manifest last."""
    prompt_length, width = record.prompt.shape
    files = {
        ADAPTER_CONFIG: json_bytes(
            adapter_config(record.backbone_name, record.backbone_kind, int(prompt_length), int(width))
        ),
        ADAPTER_MODEL: tensor_bytes({PROMPT_TENSOR: record.prompt}),
    }
    if record.task_embedding is not None:
        files[TASK_EMBEDDING] = tensor_bytes({EMBEDDING_TENSOR: record.task_embedding})
    # What search compares, so that indexing a library reads a few kilobytes a prompt and not whole embeddings.
    key_PH = record.prompt if record.task_embedding is None else record.task_embedding
    files[TASK_VECTORS] = tensor_bytes({metric: task_vector(key_PH, metric).to(torch.float32) for metric in METRICS})
    digests = {name: sha256_bytes(data) for name, data in files.items()}
    card = model_card(make_manifest(record, digests)).encode()
    manifest = make_manifest(record, {**digests, CARD: sha256_bytes(card)})
    return manifest, {**files, CARD: card, MANIFEST: manifest.to_bytes()}


def adapter_config(backbone_name: str, backbone_kind: str, prompt_length: int, width: int) -> dict[str, Any]:
    """PEFT's ``adapter_config.json`` for a prompt [P, H]; layers and heads are left to PEFT to find in the model."""
    return {
        "auto_mapping": None,
        "base_model_name_or_path": backbone_name,
        "inference_mode": True,
        "num_attention_heads": None,
        "num_layers": None,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": prompt_length,
        "peft_type": "PROMPT_TUNING",
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": None,
        "revision": None,
        "task_type": "CAUSAL_LM" if backbone_kind == "causal" else "SEQ_2_SEQ_LM",
        "token_dim": width,
        "tokenizer_name_or_path": None,
    }


def model_card(manifest: Manifest) -> str:
    """A model card in Markdown, with the metadata block that the Hub reads."""
    licence = "other" if manifest.licence == UNSTATED_LICENCE else manifest.licence
    head = {
        "library_name": "peft",
        "base_model": manifest.backbone_name,
        "license": licence,
        "tags": ["soft-prompt", "prompt-tuning", *manifest.tags],
    }
    scores = [f"| {_cell(name)} | {value:.2f} |" for name, value in manifest.scores.items() if value is not None]
    identity = manifest.backbone_fingerprint or "unverified: made elsewhere, without a fingerprint of its backbone"
    facts = {
        "task": manifest.task,
        "backbone": manifest.backbone_name,
        "backbone fingerprint": identity,
        "prompt tokens x width": f"{manifest.prompt_length} x {manifest.width} ({manifest.dtype})",
        "seed": manifest.seed,
        "steps (best)": f"{_known(manifest.steps)} ({_known(manifest.best_step)})",
        "task embedding at step": _known(manifest.embedding_step) if manifest.has_task_embedding else "none",
        "data fingerprint": _known(manifest.data_fingerprint),
        "data source": data_source(manifest),
        "inputs": chat_form(manifest),
        "licence": manifest.licence,
        "origin": manifest.origin or "trained with softprompt",
        "made with": ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
    }
    lines = ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()), "---", ""]
    lines += [f"# Soft prompt {_cell(manifest.name)}", "", "| fact | value |", "|---|---|"]
    lines += [f"| {key} | {_cell(value)} |" for key, value in facts.items()]
    if scores:
        lines += ["", "| validation metric | score (percent) |", "|---|---|", *scores]
    if manifest.command:
        lines += ["", "Made by:", "", "```", manifest.command.replace("```", "'''"), "```"]
    lines += ["", "It works on this backbone alone: a prompt does not move to another one.", ""]
    return "\n".join(lines)


def data_source(manifest: Manifest) -> str:
    """Where the rows came from on the Hub, in one line."""
    source = manifest.data_source
    if not source:
        return "not from the hub"
    config = f", {source['config']}" if source.get("config") else ""
    return f"hf://datasets/{source.get('repo')}{config} at {source.get('revision')}"


def chat_form(manifest: Manifest) -> str:
    """How inputs are worded for the prompt, in one line."""
    if manifest.chat is None:
        return "as the task words them"
    system = manifest.chat.get("system")
    turns = (
        "a user turn" if system is None else f"a system turn ({json.dumps(system, ensure_ascii=False)}) and a user turn"
    )
    return f"the chat template's {turns}, the prompt before the beginning of text"


def _known(value: object) -> str:
    return "unknown" if value is None else str(value)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
