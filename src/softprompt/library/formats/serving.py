"""The files around an export for engines: the line that starts vLLM, a configuration for Ray Serve LLM, and cards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from string import Template

from softprompt.library.formats.card import FENCE, cell, metadata, score_lines, wording_lines
from softprompt.library.manifest import Manifest

_LEAST_SLOTS = 8  # adapters in one batch: room for some that are added later


def slots(count: int) -> int:
    """Adapters that may stand in one batch: the next power of two above the number of prompts, at least 8."""
    return max(_LEAST_SLOTS, 1 << count.bit_length())


def serve_script(model: str, rank: int, count: int) -> str:
    """The shell script that starts ``vllm serve`` on all adapters of an export.

    Args:
        model: what vLLM loads, unless $MODEL says another place of the same weights.
        rank: of the adapters.
        count: of the adapters.
    """
    return f"""#!/usr/bin/env bash
# Serves every adapter of this folder under its own name: model="NAME" in an OpenAI client.
# Further options of `vllm serve` may follow, e.g. ./serve.sh --port 8001 --dtype float32
set -euo pipefail
here="$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)"
model="${{MODEL:-{_quoted(model)}}}"
modules=()
for folder in "$here"/adapters/*/; do
    folder="${{folder%/}}"
    modules+=("$(basename "$folder")=$folder")
done
# Lets adapters be loaded and unloaded while it runs (README.md); only for servers whose clients are trusted.
export VLLM_ALLOW_RUNTIME_LORA_UPDATING="${{VLLM_ALLOW_RUNTIME_LORA_UPDATING:-True}}"
exec vllm serve "$model" \\
    --tokenizer "$here/tokenizer" \\
    --served-model-name base \\
    --enable-lora --max-lora-rank {rank} --max-loras {slots(count)} --lora-target-modules embed_tokens \\
    --lora-modules "${{modules[@]}}" \\
    "$@"
"""


def _quoted(text: str) -> str:
    """A text inside a default value in double quotes."""
    return "".join(f"\\{letter}" if letter in '\\"$`}' else letter for letter in text)


def ray_config(model: str, rank: int, count: int) -> str:
    """A configuration for ``serve deploy`` (Ray Serve LLM): several replicas of the model, each loads adapters when asked.

    JSON strings are YAML strings, so what was given cannot change the file's shape.
    """
    return f"""# Ray Serve LLM: serve deploy ray_serve.yaml. Put the folder `adapters` into a bucket and the folder `tokenizer` where all nodes
# read it, and name the two places below. Without GPUs add `accelerator_config: {{kind: cpu}}` beside lora_config.
# A client asks for model="base:NAME" and retries: a replica that dies loses what it was answering.
applications:
  - name: softprompt
    route_prefix: /
    import_path: ray.serve.llm:build_openai_app
    args:
      llm_configs:
        - model_loading_config:
            model_id: base
            model_source: {json.dumps(model)}
          lora_config:
            dynamic_lora_loading_path: s3://YOUR-BUCKET/adapters
            max_num_adapters_per_replica: {slots(count)}
          engine_kwargs:
            tokenizer: /ALL-NODES/tokenizer
            enable_lora: true
            max_lora_rank: {rank}
            max_loras: {slots(count)}
            lora_target_modules: [embed_tokens]
          deployment_config:
            autoscaling_config:
              min_replicas: 1
              max_replicas: 4
"""


def adapter_card(manifest: Manifest, model: str) -> str:
    """The card of one exported adapter."""
    lines = [
        f"# {cell(manifest.name)}: a soft prompt as a LoRA adapter",
        "",
        f"{manifest.prompt_length} trained vectors, as an adapter on the embedding of {cell(model)}. It needs the tokenizer of "
        "its export, which puts the ids that it replaces in front of every text.",
        "",
        "## Use it",
        "",
        *_client(manifest.name),
        *wording_lines(manifest),
        *score_lines(manifest),
        f"Licence: {cell(manifest.licence)}.",
    ]
    return f"---\n{metadata(manifest)}\n---\n\n" + "\n".join(lines) + "\n"


def _client(name: str) -> list[str]:
    return [
        f"{FENCE}python",
        "from openai import OpenAI",
        "",
        'client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")',
        f"answer = client.completions.create(model={json.dumps(name)}, prompt=text, temperature=0, max_tokens=8)",
        FENCE,
        "",
        "`text` is worded as below; the engine does not do it.",
        "",
    ]


def export_card(model: str, length: int, names: Sequence[str], rare: Sequence[str]) -> str:
    """The README of an export."""
    shown = ", ".join(f"`{name}`" for name in names)
    plain = "\n".join(json.dumps(token, ensure_ascii=False) for token in rare)
    read = (
        "No ordinary token was taken for it: every text is read as before."
        if not rare
        else f"""{len(rare)} ordinary tokens, the rarest of the vocabulary, were taken for it. Texts with them are read in two smaller
pieces, which the model knows as well but the prompt was not tuned on:

{FENCE}text
{plain}
{FENCE}"""
    )
    told = {"count": len(names), "length": length, "model": cell(model), "names": shown, "read": read}
    text = (Path(__file__).parent / "serving.md").read_text(encoding="utf-8")
    return Template(text).substitute(told, client="\n".join(_client(names[0])))
