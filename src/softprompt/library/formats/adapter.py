"""The files of a prompt's folder: an exact PEFT prompt-tuning adapter, a card, a task embedding and the manifest.

The adapter holds one tensor ``prompt_embeddings`` [P, H] and is for the encoder alone (``num_transformer_submodules``
is 1; PEFT's own default for encoder-decoders is 2, of which it uses the first half).
"""

from __future__ import annotations

from typing import Any

import torch

from softprompt.artifacts import json_bytes, sha256_bytes, tensor_bytes
from softprompt.library.formats.card import model_card
from softprompt.library.manifest import Manifest, make_manifest
from softprompt.library.metric import METRICS
from softprompt.library.record import (
    ADAPTER_CONFIG,
    ADAPTER_MODEL,
    CARD,
    EMBEDDING_TENSOR,
    MANIFEST,
    PROMPT_TENSOR,
    TASK_EMBEDDING,
    TASK_VECTORS,
    PromptRecord,
)
from softprompt.library.similarity import task_vector


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
