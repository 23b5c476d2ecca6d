"""Read from an installed vLLM which architectures take an adapter on their embedding, and write the list the export checks.

    VLLM_PYTHON scripts/vllm_architectures.py src/softprompt/library/formats/engines.json

Runs in vLLM's own environment, without softprompt. An architecture whose class cannot be imported there is not listed.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

ABOUT = (
    "Architectures (config.json) whose embedding of tokens takes a LoRA adapter in vLLM; read from vLLM's own model classes "
    "by scripts/vllm_architectures.py."
)


def main(place: Path) -> None:
    import vllm
    from vllm.model_executor.models import registry

    found = []
    for architecture, (module, name) in sorted(registry._TEXT_GENERATION_MODELS.items()):
        try:
            model = getattr(importlib.import_module(f"vllm.model_executor.models.{module}"), name)
        except Exception as error:  # packages that this machine lacks
            print(f"{architecture}: left out ({error})", file=sys.stderr)
            continue
        if getattr(model, "supports_lora", False) and "embed_tokens" in (
            getattr(model, "embedding_modules", None) or {}
        ):
            found.append(architecture)
    place.write_text(json.dumps({"about": ABOUT, "vllm": vllm.__version__, "architectures": found}, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
