#!/usr/bin/env bash
# An environment of its own with vLLM for CPUs, Ray Serve LLM and a local object store to try it with: scripts/ray_environment.sh FOLDER
set -euo pipefail
place="${1:?name a folder for the environment}"
"$(dirname "${BASH_SOURCE[0]}")/vllm_environment.sh" "$place"
# Not ray[llm]: it asks for another vLLM, built for GPUs.
"$place/bin/pip" install --quiet "ray[serve]==2.60.0" boto3 jsonref jsonschema pandas pyarrow typer "moto[server,s3]"
"$place/bin/python" -c "import ray.serve.llm"
