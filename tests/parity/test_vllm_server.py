"""The real vLLM, alone and under Ray Serve LLM, serves exported prompts as our backbone answers. Slow; needs environments of their own.

scripts/vllm_environment.sh /tmp/vllm && SOFTPROMPT_VLLM=/tmp/vllm pytest -m slow tests/parity/test_vllm_server.py
scripts/ray_environment.sh /tmp/ray && SOFTPROMPT_RAY=/tmp/ray pytest -m slow tests/parity/test_vllm_server.py
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.support.models import save_tiny

from softprompt.backbones.load import load_backbone
from softprompt.library.formats.lora import export_lora
from softprompt.library.record import PromptRecord
from softprompt.library.store import Library

pytestmark = pytest.mark.slow
TEXTS = ("the cat sees a dog", "a", "One day; 3 dogs!")


def environment(variable: str, script: str) -> Path:
    place = os.environ.get(variable)
    if not place:
        pytest.skip(f"{variable} names no environment (scripts/{script} makes one)")
    return Path(place)


@pytest.fixture
def serve_vllm(repo: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(repo / "benchmarks"), *sys.path])
    import serve_vllm

    return serve_vllm


@pytest.fixture
def made(tmp_path: Path) -> tuple[Any, Library, dict[str, torch.Tensor]]:
    """A random Llama, and a library of three prompts for it."""
    folder = save_tiny("llama", tmp_path / "llama", width=128)
    backbone = load_backbone(str(folder), dtype="float32")
    library, prompts = Library(tmp_path / "library"), {}
    for seed, name in enumerate(("films", "music", "late")):
        prompts[name] = torch.randn(5, 128, generator=torch.Generator().manual_seed(seed))
        library.add(
            PromptRecord(
                task=name, name=name, prompt=prompts[name], backbone_name=str(folder), backbone_kind="causal",
                backbone_fingerprint=backbone.fingerprint,
            )
        )  # fmt: skip
    return backbone, library, prompts


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.timeout(900)
def test_three_prompts_in_one_batch_answer_as_ours(tmp_path: Path, serve_vllm: Any, made: Any) -> None:
    place = environment("SOFTPROMPT_VLLM", "vllm_environment.sh")
    backbone, library, prompts = made
    out, port = tmp_path / "out", free_port()
    export_lora(backbone, [library.get(name) for name in ("films", "music")], out, model=backbone.name)
    requests = [{"model": name, "prompt": text} for text in TEXTS for name in prompts]
    with serve_vllm.serving(out, place, port, tmp_path / "vllm.log", length=256):
        export_lora(backbone, [library.get("late")], out, model=backbone.name)
        serve_vllm.load_adapter(port, "late", out / "adapters" / "late")
        theirs = serve_vllm.asked(place / "bin" / "python", port, requests, 9)["answers"]
    ours, _ = serve_vllm.our_answers(backbone, requests, prompts)
    assert [text.strip() for text in theirs] == ours
    assert len(set(ours)) > 3, "the prompts decide the answers"


@contextmanager
def ray_serve(place: Path, config: Path, adapters: Path, folder: Path) -> Iterator[None]:
    """``serve run CONFIG`` on a Ray cluster of this machine, its adapters in a bucket of a local object store."""
    store, log = free_port(), (folder / "ray.log").open("w")
    env = {
        **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"}, "HF_HUB_OFFLINE": "1",
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{store}", "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }  # fmt: skip

    def run(*command: str) -> None:
        subprocess.run(command, env=env, stdout=log, stderr=subprocess.STDOUT, check=True, timeout=300)

    bucket = subprocess.Popen([place / "bin" / "moto_server", "-p", str(store)], env=env, stdout=log, stderr=log)
    try:
        upload = (
            "import boto3, pathlib, sys, time; s3 = boto3.client('s3'); root = pathlib.Path(sys.argv[1])\n"
            "for _ in range(60):\n"
            "    try: s3.create_bucket(Bucket='softprompt'); break\n"
            "    except Exception: time.sleep(0.5)\n"
            "for f in root.rglob('*'):\n"
            "    if f.is_file(): s3.upload_file(str(f), 'softprompt', f'adapters/{f.relative_to(root)}')\n"
        )
        run(str(place / "bin" / "python"), "-c", upload, str(adapters))
        run("ray", "start", "--head", "--num-cpus=8", "--port=0", "--include-dashboard=true")
        run("serve", "deploy", str(config))
        yield
    finally:
        with suppress(subprocess.SubprocessError):
            run("ray", "stop", "--force")
        bucket.kill()
        bucket.wait()
        log.close()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=30) as reply:
            return b"base:films" in reply.read()
    except OSError:
        return False


def replicas() -> list[int]:
    """Process ids of the replicas that hold an engine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().startswith(b"ray::ServeReplica:softprompt:LLMServer"):
                found.append(int(path.parent.name))
    return found


@pytest.mark.timeout(1200)
def test_ray_serve_loses_a_replica_under_load(tmp_path: Path, serve_vllm: Any, made: Any) -> None:
    place = environment("SOFTPROMPT_RAY", "ray_environment.sh")
    backbone, library, prompts = made
    out, port = tmp_path / "out", free_port()
    export_lora(backbone, [library.get(name) for name in prompts], out, model=backbone.name)
    config = yaml.safe_load((out / "ray_serve.yaml").read_text())
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    (engine,) = config["applications"][0]["args"]["llm_configs"]
    engine["lora_config"]["dynamic_lora_loading_path"] = "s3://softprompt/adapters"
    engine["engine_kwargs"] |= {
        "tokenizer": str(out / "tokenizer"),
        "dtype": "float32",
        "max_model_len": 256,
        "enforce_eager": True,
    }
    engine["accelerator_config"] = {"kind": "cpu"}
    engine["deployment_config"] = {"num_replicas": 2}
    (tmp_path / "ray.yaml").write_text(yaml.safe_dump(config))
    requests = [
        {"model": f"base:{name}", "prompt": f"{text} {n}"} for n in range(40) for text in TEXTS for name in prompts
    ]
    ours, _ = serve_vllm.our_answers(backbone, [{**r, "model": r["model"][5:]} for r in requests], prompts)
    with ray_serve(place, tmp_path / "ray.yaml", out / "adapters", tmp_path):
        end, python = time.monotonic() + 600, place / "bin" / "python"
        while not _answers(port) and time.monotonic() < end:
            time.sleep(1)
        serve_vllm.asked(python, port, requests[:6], 2, retries=10)
        first = replicas()
        assert len(first) == 2
        killer = threading.Timer(3.0, lambda: os.kill(first[0], signal.SIGKILL))
        killer.start()
        theirs = serve_vllm.asked(python, port, requests, 8, retries=10)["answers"]
        killer.join()
        assert first[0] not in replicas(), "the replica was killed while requests were under way"
        while len(replicas()) < 2 and time.monotonic() < end:
            time.sleep(1)
        assert len(replicas()) == 2, "another one took its place"
    assert [text.strip() for text in theirs] == ours
