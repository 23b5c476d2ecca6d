"""The server and its engine: mixed tasks against one task and against PEFT switching adapters; what HTTP adds; a bad day.

    python benchmarks/serving_speed.py                       # all, on the embedded backbone
    python benchmarks/serving_speed.py --backbone smollm2 --only engine
    python benchmarks/serving_speed.py --only day --requests 10000

Lines go to benchmarks/results/serving_speed.jsonl with processor, seed and command. Prompts are random word vectors, which cost what
trained ones cost. PEFT's and our answers are compared; ratios are of medians over rounds in one process, the contenders in turn.

Letters: N prompts, P prompt tokens, H width.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

LOAD = round(os.getloadavg()[0], 1)  # a busy machine shows in the figures
RESULTS = Path(__file__).parent / "results" / "serving_speed.jsonl"
TEXTS = ("a fine film that never tires", "the plot is dull and the actors are lost", "we waited an hour for cold soup",
         "an old friend wrote to me from the coast", "the new engine needs less oil than the old one")  # fmt: skip


def word_prompts(backbone: Any, count: int, length: int, seed: int) -> Any:
    """[N, P, H] of random words."""
    import torch

    table = backbone.embedding_table().cpu()
    return table[torch.randint(0, table.shape[0], (count, length), generator=torch.Generator().manual_seed(seed))]


def engine_of(backbone: Any, prompts_NPH: Any) -> Any:
    from softprompt.inference.engine import Engine, Served
    from softprompt.prompts.stack import PromptStack

    held = [
        Served(prompter=PromptStack(p[None].to(backbone.device), keys=["0"]), key=str(n))
        for n, p in enumerate(prompts_NPH)
    ]
    return Engine(backbone, lambda name: held[int(name)])


def engine_speed(backbone: Any, args: Any) -> dict[str, Any]:
    """64 requests of 64 tasks: mixed, of one task, and by PEFT."""
    from peft_prompts import peft_answers

    from softprompt.inference.engine import Request

    prompts_NPH = word_prompts(backbone, args.prompts, args.length, args.seed)
    engine = engine_of(backbone, prompts_NPH)
    draw = random.Random(args.seed)
    texts = [draw.choice(TEXTS) for _ in range(args.prompts)]

    def ours(number: Callable[[int], int]) -> list[str]:
        asked = [
            Request(prompt=str(number(i)), text=text, max_new_tokens=args.new_tokens) for i, text in enumerate(texts)
        ]
        return [answer.text for answer in engine.answer(asked)]

    peft = peft_answers(backbone, prompts_NPH, args.new_tokens)
    ways: dict[str, Callable[[], list[str]]] = {
        "mixed": lambda: ours(lambda i: i),
        "one task": lambda: ours(lambda i: 0),
        "peft": lambda: [peft(number, [text])[0] for number, text in enumerate(texts)],
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    answers = {way: run() for way, run in ways.items()}
    for _ in range(args.rounds):
        for way, run in ways.items():
            begun = time.perf_counter()
            run()
            seconds[way].append(time.perf_counter() - begun)
    middle = {way: statistics.median(times) for way, times in seconds.items()}
    return {
        "what": "engine", "seconds": seconds, "requests_per_second": {w: len(texts) / s for w, s in middle.items()},
        "mixed_over_peft": middle["peft"] / middle["mixed"], "mixed_over_one_task": middle["one task"] / middle["mixed"],
        "same_answers_as_peft": sum(a == b for a, b in zip(answers["mixed"], answers["peft"], strict=True)),
    }  # fmt: skip


class Running:
    """A server in a thread over a library of word prompts."""

    def __init__(self, backbone: Any, folder: Path, args: Any) -> None:
        from softprompt.inference.catalogue import Catalogue
        from softprompt.inference.connections import server
        from softprompt.inference.engine import Engine
        from softprompt.inference.guard import Limits
        from softprompt.inference.http import make_app
        from softprompt.library.store import Library

        self.backbone, self.library = backbone, Library(folder)
        self.prompts_NPH = word_prompts(backbone, args.served, args.length, args.seed)
        for n in range(args.served):
            self.put(n, self.prompts_NPH[n])
        limits = Limits(body_s=2.0, header_s=2.0)
        catalogue = Catalogue(backbone, self.library)
        self.engine = Engine(backbone, catalogue.resolve, version=catalogue.version)
        app = make_app(self.engine, catalogue, limits=limits)
        self._server = server(app, limits, port=0)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.02)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    def put(self, number: int, prompt_PH: Any) -> None:
        from softprompt.library.manifest import PromptRecord

        backbone = self.backbone
        record = PromptRecord(
            task=f"t{number}", prompt=prompt_PH, task_embedding=prompt_PH, backbone_name=backbone.name,
            backbone_fingerprint=backbone.fingerprint, backbone_kind=backbone.kind, steps=1, embedding_step=1,
        )  # fmt: skip
        self.library.add(record, replace=True)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)


async def post(port: int, body: bytes, reader_writer: Any = None) -> tuple[int, Any, Any]:
    """(status, JSON, connection), over a connection that is kept."""
    reader, writer = reader_writer or await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    status = int((await reader.readline()).split()[1])
    length, closes = 0, False
    while line := (await reader.readline()).strip().lower():
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
        closes = closes or line == b"connection: close"
    found = json.loads(await reader.readexactly(length))
    if closes:
        writer.close()
    return status, found, None if closes else (reader, writer)


def http_cost(backbone: Any, args: Any) -> dict[str, Any]:
    """What a request costs over the bare engine's, 32 clients in a process of their own, each asking again when answered."""
    from softprompt.inference.engine import Request

    with tempfile.TemporaryDirectory() as folder:
        server = Running(backbone, Path(folder), args)
        asked = [(f"t{i % args.served}@0", TEXTS[i % len(TEXTS)]) for i in range(32)]
        requests = [Request(prompt=n, text=t, max_new_tokens=args.new_tokens) for n, t in asked]
        bodies = [json.dumps({"model": n, "prompt": t, "max_tokens": args.new_tokens}) for n, t in asked]
        command = [sys.executable, __file__, "--clients", str(server.port)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as clients:
            assert clients.stdin is not None
            assert clients.stdout is not None
            clients.stdin.write(json.dumps(bodies) + "\n")

            def over_http(count: int) -> float:
                """Milliseconds a request where each client asks so often."""
                assert clients.stdin is not None
                assert clients.stdout is not None
                clients.stdin.write(f"{count}\n")
                clients.stdin.flush()
                return 1000 * float(clients.stdout.readline()) / (32 * count)

            def bare(count: int) -> float:
                begun = time.perf_counter()
                for _ in range(count):
                    server.engine.answer(requests)
                return 1000 * (time.perf_counter() - begun) / (32 * count)

            over_http(3), bare(1)
            pairs = [(bare(args.waves), over_http(args.waves)) for _ in range(args.rounds)]
            clients.stdin.close()
        server.close()
    added = [over - alone for alone, over in pairs]
    return {
        "what": "http", "clients": 32, "waves": args.waves, "bare_ms": statistics.median(p[0] for p in pairs), "server_ms": statistics.median(p[1] for p in pairs),
        "added_ms_median": statistics.median(added), "added_ms": added,
    }  # fmt: skip


def run_clients(port: int) -> None:
    """Bodies as a line of JSON on standard input, then how often each is asked for, a line a round; seconds go out."""
    bodies = [body.encode() + b" " * i for i, body in enumerate(json.loads(sys.stdin.readline()))]

    kept: dict[bytes, Any] = {}

    async def client(body: bytes, count: int) -> None:
        for _ in range(count):
            status, _, kept[body] = await post(port, body, kept.get(body))
            assert status == 200, status

    async def round_of(count: int) -> float:
        kept.clear()
        await asyncio.gather(*(client(body, 2) for body in bodies))  # connections are open
        begun = time.perf_counter()
        await asyncio.gather(*(client(body, count) for body in bodies))
        return time.perf_counter() - begun

    for line in sys.stdin:
        print(asyncio.run(round_of(int(line))), flush=True)


def bad_day(backbone: Any, args: Any) -> dict[str, Any]:
    """64 clients; 5 % each of malformed, unknown, cut off and slow requests, and prompts replaced underneath all the time."""
    from softprompt.inference.engine import Request

    with tempfile.TemporaryDirectory() as folder:
        server = Running(backbone, Path(folder), args)
        versions = [server.prompts_NPH, word_prompts(backbone, args.served, args.length, args.seed + 1)]
        right: list[dict[tuple[str, str], str]] = []
        for prompts in versions:
            engine = engine_of(backbone, prompts)
            pairs = [(n, t) for n in range(args.served) for t in TEXTS]
            told = engine.answer([Request(prompt=str(n), text=t, max_new_tokens=args.new_tokens) for n, t in pairs])
            right.append({(f"t{n}@0", t): a.text for (n, t), a in zip(pairs, told, strict=True)})
        over = threading.Event()

        def change() -> None:
            draw = random.Random(args.seed)
            while not over.wait(0.05):
                number = draw.randrange(args.served)
                server.put(number, versions[draw.randrange(2)][number])

        changing = threading.Thread(target=change)
        changing.start()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.perf_counter()
        counts, latencies = asyncio.run(_clients(server, right, args))
        took = time.perf_counter() - begun
        over.set()
        changing.join()
        server.close()
    latencies.sort()
    return {
        "what": "day", "clients": 64, "requests": args.requests, "counts": counts, "seconds": took,
        "p50_ms": 1000 * latencies[len(latencies) // 2], "p99_ms": 1000 * latencies[int(0.99 * len(latencies))],
        "peak_growth_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }  # fmt: skip


async def _clients(
    server: Running, right: list[dict[tuple[str, str], str]], args: Any
) -> tuple[dict[str, int], list[float]]:
    counts = {"right": 0, "wrong": 0, "hang": 0, "refused as it should": 0, "refused as it should not": 0, "left": 0}
    latencies: list[float] = []
    left = iter(range(args.requests))

    async def ask(kind: float, draw: random.Random, kept: Any) -> Any:
        name, text = f"t{draw.randrange(args.served)}@0", draw.choice(TEXTS)
        body = json.dumps({"model": name, "prompt": text, "max_tokens": args.new_tokens}).encode()
        if kind < 0.10:
            bad = b'{"model": 3' if kind < 0.05 else body.replace(name.encode(), b"nobody")
            status, _, kept = await post(server.port, bad, kept)
            counts[
                "refused as it should" if status == (400 if kind < 0.05 else 404) else "refused as it should not"
            ] += 1
            return kept
        if kind < 0.20:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            writer.write(head % len(body) + (body if kind < 0.15 else body[:20]))
            await asyncio.sleep(0.0 if kind < 0.15 else 0.5)  # hangs up at once, or sends half and waits
            writer.close()
            counts["left"] += 1
            return kept
        begun = time.perf_counter()
        status, found, kept = await post(server.port, body, kept)
        latencies.append(time.perf_counter() - begun)
        if status != 200:
            counts["refused as it should not"] += 1
        else:
            fits = found["choices"][0]["text"] in (r[name, text] for r in right)
            counts["right" if fits else "wrong"] += 1
        return kept

    async def client(number: int) -> None:
        draw, kept = random.Random(1000 * args.seed + number), None
        for _ in left:
            try:
                kept = await asyncio.wait_for(ask(draw.random(), draw, kept), 60)
            except TimeoutError:
                counts["hang"] += 1
                kept = None

    await asyncio.gather(*(client(n) for n in range(64)))
    return counts, latencies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="builtin")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--only", choices=("engine", "http", "day"))
    parser.add_argument("--prompts", type=int, default=64, help="tasks of the 64 requests")
    parser.add_argument("--served", type=int, default=16, help="prompts of the served library")
    parser.add_argument("--length", type=int, default=20, help="P")
    parser.add_argument("--new-tokens", type=int, default=4)
    parser.add_argument("--requests", type=int, default=2000, help="of the bad day")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--waves", type=int, default=10,
        help="requests of each client in a round of http, after two that are not timed; with few, the last clients' own pass weighs",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.clients:
        run_clients(args.clients)
        return
    import torch

    from softprompt.backbones.engine.native.levels import processor
    from softprompt.backbones.load import load_backbone

    torch.set_grad_enabled(False)
    backbone = load_backbone(args.backbone, dtype=args.dtype)
    ways = {"http": http_cost, "day": bad_day, "engine": engine_speed}
    for way in [args.only] if args.only else ways:
        found = ways[way](backbone, args)
        found |= {"backbone": args.backbone, "dtype": str(backbone.dtype).removeprefix("torch."), "seed": args.seed, "processor": processor(), "load_before": LOAD, "nice": os.nice(0),
                  "threads": torch.get_num_threads(), "command": "python benchmarks/serving_speed.py " + " ".join(sys.argv[1:])}  # fmt: skip
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
