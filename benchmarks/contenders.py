"""One training step of prompt tuning, by softprompt and by PEFT, each in a process of its own.

A worker loads a model, then answers requests: a batch number -> seconds, loss, tokens, bytes. Only one worker computes at
a time, so that runs can alternate on one machine. Weights are random: they do not matter for speed. On a CUDA device a step
is timed from an idle device to an idle device, by the host's clock and by CUDA events.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from rows import Row, t5_rows, tokenized_rows

BATCHES = 8  # different batches that the steps go round


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained.

    Attributes:
        shape: ``t5-base``, ``t5-small``, ``builtin``, ``smollm2`` (the packaged model), or ``toy`` for checks.
        task: ``rte``, ``boolq`` or ``sst2``.
        batch: rows per run and step.
        prompt: P.
        runs: N, prompts trained together (by us; PEFT trains one).
        threads: of each process.
        dropout: rate, for all.
        peft_rows: rows of a forward pass of PEFT, which adds up gradients over a batch that its memory does not hold;
            0 for the whole batch at once.
        device: where they compute.
        micro_tokens: most positions in one forward pass of ours; 0 for the whole batch.
    """

    shape: str = "t5-base"
    task: str = "rte"
    batch: int = 32
    prompt: int = 100
    runs: int = 1
    threads: int = 2
    dropout: float = 0.1
    dtype: str = "bfloat16"
    checkpointing: bool = False
    peft_rows: int = 0
    device: str = "cpu"
    micro_tokens: int = 0


SHAPES = {"toy": (32, 64, 2, 2), "t5-small": (512, 1024, 8, 6), "t5-base": (768, 2048, 12, 12)}
"""Width, feed-forward width, layers, heads of the T5 v1.1 shapes."""
DECODER = "smollm2"
DECODER_SHAPE = {"width": 576, "inner": 1536, "layers": 30, "heads": 9, "groups": 3, "head": 64, "vocabulary": 49152}


def t5_config(shape: str, dropout: float) -> Any:
    """T5 v1.1 shapes."""
    from transformers import T5Config

    width, inner, layers, heads = SHAPES[shape]
    return T5Config(
        vocab_size=32128, d_model=width, d_ff=inner, num_layers=layers, num_decoder_layers=layers, num_heads=heads,
        d_kv=64, feed_forward_proj="gated-gelu", dropout_rate=dropout, decoder_start_token_id=0,
        tie_word_embeddings=False,
    )  # fmt: skip


def build(job: Job, dtype: Any) -> tuple[Any, Any, list[Row], str]:
    """Model, tokenizer, rows and where the rows come from."""
    import torch

    torch.manual_seed(0)
    count = job.batch * BATCHES
    if job.shape == "builtin":
        from softprompt.backbones.builtin import load_builtin_model
        from softprompt.backbones.load import wrap

        model, tokenizer = load_builtin_model(torch.float32)
        rows, source = tokenized_rows(job.task, count, wrap(model, tokenizer, name="builtin", fingerprint="0" * 64))
        for part in (model.config.encoder, model.config.decoder):
            part.hidden_dropout_prob = part.attention_probs_dropout_prob = job.dropout
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = job.dropout
        return model.to(job.device, dtype), tokenizer, rows, source
    if job.shape == DECODER:
        return _decoder(job, dtype, count)
    from transformers import T5ForConditionalGeneration

    torch.set_default_dtype(dtype)
    model = T5ForConditionalGeneration(t5_config(job.shape, job.dropout))
    torch.set_default_dtype(torch.float32)
    rows, source = t5_rows(job.task, count)
    return model.to(job.device), _no_words(), rows, source


def _no_words() -> Any:
    """A tokenizer that knows the ends alone: rows come as ids, and the weights are random anyway."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def _decoder(job: Job, dtype: Any, count: int) -> tuple[Any, Any, list[Row], str]:
    """SmolLM2-135M as it is packaged, and rows in its own vocabulary."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from softprompt.backbones.gguf import smollm2_folder
    from softprompt.backbones.load import wrap

    folder = smollm2_folder()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # The rows come from another copy, whose fused weights are thrown away with it.
    wrapped = wrap(
        AutoModelForCausalLM.from_pretrained(folder, dtype=dtype), tokenizer, name=DECODER, fingerprint="0" * 64
    )
    rows, source = tokenized_rows(job.task, count, wrapped)
    return model.to(job.device), tokenizer, rows, source


def ours(job: Job) -> tuple[Callable[[int], tuple[float, int]], str]:
    """Our step over all runs together."""
    import torch

    from softprompt.backbones.base import Dropout
    from softprompt.backbones.engine.host import keep_freed_memory
    from softprompt.backbones.load import wrap
    from softprompt.batch import Rows, TokenBatch, on_device
    from softprompt.prompts.stack import PromptStack

    if job.device == "cpu":
        keep_freed_memory()
    model, tokenizer, rows, source = build(job, getattr(torch, job.dtype))
    backbone = wrap(model, tokenizer, name=job.shape, fingerprint="0" * 64)
    backbone.checkpointing = job.checkpointing
    table = backbone.embedding_table()[1000 : 1000 + job.prompt]
    stack = PromptStack(table.expand(job.runs, -1, -1), tuned=True)
    optimizer = torch.optim.Adam([stack.prompts_NPH], lr=0.3)

    def step(number: int) -> tuple[float, int]:
        # Every run has its own data order.
        picked = [(n, row) for n in range(job.runs) for row in _batch(rows, number + n, job.batch)]
        targets = sum(len(row[1]) for _, row in picked)
        total = torch.zeros((), device=job.device)
        for part in _passes([len(row[0]) + job.prompt for _, row in picked], job.micro_tokens):
            chosen = [picked[i] for i in part]
            batch = TokenBatch.of([r[0] for _, r in chosen], [r[1] for _, r in chosen], job.device)
            keys = on_device(torch.tensor(part) + 100_000 * number, job.device)
            run_B = on_device(torch.tensor([n for n, _ in chosen]), job.device)
            dropout = Dropout(rate=job.dropout, key_B=keys) if job.dropout else None
            losses = backbone.example_losses(batch, stack.prompts(Rows(run_B=run_B)), dropout)
            loss = losses.nll_B.sum() * (job.runs / targets)
            loss.backward()
            total += loss.detach()
        optimizer.step()
        optimizer.zero_grad()
        return float(total), sum(len(row[0]) for _, row in picked) + len(picked) * job.prompt

    return step, source


def peft(job: Job, *, best: bool) -> tuple[Callable[[int], tuple[float, int]], str]:
    """PEFT's step: as documented (float32), or at its best (bfloat16, encoder-only prompt); batches padded to their longest."""
    import torch
    from peft import PromptTuningConfig, TaskType, get_peft_model

    model, _, rows, source = build(job, torch.bfloat16 if best else torch.float32)
    extra: dict[str, Any] = {"num_transformer_submodules": 1} if best else {}
    if job.shape == "builtin":
        model.config.vocab_size = model.config.encoder.vocab_size
        shape = model.config.encoder
        extra |= {"token_dim": shape.hidden_size, "num_layers": shape.num_hidden_layers}
        extra |= {"num_attention_heads": shape.num_attention_heads}
    causal = job.shape == DECODER
    extra = {} if causal else extra
    kind = TaskType.CAUSAL_LM if causal else TaskType.SEQ_2_SEQ_LM
    config = PromptTuningConfig(task_type=kind, num_virtual_tokens=job.prompt, **extra)
    model = get_peft_model(model, config)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.3)

    def step(number: int) -> tuple[float, int]:
        picked = _batch(rows, number, job.batch)
        size = job.peft_rows or len(picked)
        loss = sum(part(picked[i : i + size], len(picked)) for i in range(0, len(picked), size))
        optimizer.step()
        optimizer.zero_grad()
        return loss, sum(len(r[0]) for r in picked) + len(picked) * job.prompt

    def part(picked: list[Row], of: int) -> float:
        padded = _padded_decoder(picked) if causal else _padded(picked, picked)
        ids, mask, labels = (part.to(job.device) for part in padded)
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss * (len(picked) / of)
        loss.backward()
        return float(loss.detach())

    return step, source


def _padded(picked: list[Row], over: list[Row]) -> tuple[Any, Any, Any]:
    """Ids, mask and labels (-100 where there is none) as tensors, padded to the longest of ``over``."""
    import torch

    width, depth = max(len(r[0]) for r in over), max(len(r[1]) for r in over)
    ids = torch.tensor([r[0] + [0] * (width - len(r[0])) for r in picked])
    mask = torch.tensor([[1] * len(r[0]) + [0] * (width - len(r[0])) for r in picked])
    labels = torch.tensor([r[1] + [-100] * (depth - len(r[1])) for r in picked])
    return ids, mask, labels


def _padded_decoder(picked: list[Row]) -> tuple[Any, Any, Any]:
    """The same for a decoder-only model: targets behind inputs, labels where targets are, padded to the batch's longest."""
    import torch

    width = max(len(a) + len(b) for a, b in picked)
    spare = [width - len(a) - len(b) for a, b in picked]
    ids = torch.tensor([[*a, *b] + [0] * n for (a, b), n in zip(picked, spare, strict=True)])
    mask = torch.tensor([[1] * (width - n) + [0] * n for n in spare])
    labels = torch.tensor([[-100] * len(a) + list(b) + [-100] * n for (a, b), n in zip(picked, spare, strict=True)])
    return ids, mask, labels


def _passes(lengths: list[int], limit: int) -> list[list[int]]:
    """Row numbers of each forward pass: rows of like length together, at most ``limit`` padded positions a pass."""
    if not limit:
        return [list(range(len(lengths)))]
    parts: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not parts or (len(parts[-1]) + 1) * lengths[parts[-1][0]] > limit:
            parts.append([])
        parts[-1].append(row)
    return parts


def _batch(rows: list[Row], number: int, size: int) -> list[Row]:
    start = number % BATCHES * size
    return rows[start : start + size]


def matrix_rate(job: Job) -> tuple[Callable[[int], tuple[float, int]], str]:
    """The machine's own rate in matrix products of the model's shapes: a "step" returns operations done."""
    import torch

    if job.shape == DECODER:
        width, inner = DECODER_SHAPE["width"], 2 * DECODER_SHAPE["inner"]
    else:
        width, inner = (384, 1536) if job.shape == "builtin" else (SHAPES[job.shape][0], 2 * SHAPES[job.shape][1])
    dtype = getattr(torch, job.dtype)
    # A fast device needs more rows to be filled, and more products to make its start-up small.
    rows, repeats = (8192, 8) if job.device == "cpu" else (65536, 64)
    x = torch.randn(rows, width, device=job.device).to(dtype)
    w = torch.randn(inner, width, device=job.device).to(dtype)
    out = torch.empty(rows, inner, dtype=dtype, device=job.device)

    def step(number: int) -> tuple[float, int]:
        for _ in range(repeats):
            torch.mm(x, w.t(), out=out)
        return 0.0, repeats * 2 * rows * width * inner

    return step, "matrix products alone"


def ours_plain(job: Job) -> tuple[Callable[[int], tuple[float, int]], str]:
    """Our step without kernels of our own or for packed rows: plain PyTorch operations, attention over padded rows."""
    os.environ["SOFTPROMPT_KERNELS"] = "torch"
    return ours(job)


def ours_compiled(job: Job) -> tuple[Callable[[int], tuple[float, int]], str]:
    """Our step on plain PyTorch operations, what lies between the products compiled by torch.compile."""
    from softprompt.backbones.engine import ops
    from softprompt.backbones.engine.device import compiled

    ops.formula = lambda function, x: compiled(function)
    return ours_plain(job)


def hugging_face(job: Job, *, compiled: bool) -> tuple[Callable[[int], tuple[float, int]], str]:
    """Hugging Face's own modules over padded rows with the prompt's vectors in front; all of the model compiled, or eager.

    Compiled shapes are static: rows are padded to the longest of all batches, so that there is one shape to compile.
    """
    import torch
    from torch.nn import functional

    model, _, rows, source = build(job, getattr(torch, job.dtype))
    model.requires_grad_(False)
    table = model.get_encoder().get_input_embeddings().weight
    prompt = torch.nn.Parameter(table[1000 : 1000 + job.prompt].detach().float().clone())
    optimizer = torch.optim.Adam([prompt], lr=0.3)
    forward = torch.compile(model, dynamic=False) if compiled else model

    def step(number: int) -> tuple[float, int]:
        picked = _batch(rows, number, job.batch)
        ids, mask, labels = _padded(picked, rows if compiled else picked)
        mask = functional.pad(mask, (job.prompt, 0), value=1)
        front = prompt.to(table.dtype).expand(len(picked), -1, -1)
        embeds = torch.cat([front, functional.embedding(ids, table)], 1)
        previous = torch.roll(labels, 1, 1).clamp(min=0)
        previous[:, 0] = model.config.decoder_start_token_id
        logits = forward(inputs_embeds=embeds, attention_mask=mask, decoder_input_ids=previous).logits
        loss = functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=-100)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach()), sum(len(r[0]) for r in picked) + len(picked) * job.prompt

    return step, source


KINDS: dict[str, Callable[[Job], tuple[Callable[[int], tuple[float, int]], str]]] = {
    "ours": ours,
    "ours-plain": ours_plain,
    "ours-compiled": ours_compiled,
    "hf": lambda job: hugging_face(job, compiled=False),
    "hf-compiled": lambda job: hugging_face(job, compiled=True),
    "peft-fp32": lambda job: peft(job, best=False),
    "peft-bf16": lambda job: peft(job, best=True),
    "matrix": matrix_rate,
}


def _work(kind: str, job: Job, pipe: Any) -> None:
    import torch

    torch.set_num_threads(job.threads)
    step, source = KINDS[kind](job)
    clock = _HostClock() if job.device == "cpu" else _CudaClock(job.device)
    pipe.send(source)
    while (number := pipe.recv()) is not None:
        clock.start()
        loss, tokens = step(number)
        pipe.send((*clock.stop(), loss, tokens, clock.memory()))


class _HostClock:
    """Wall, CPU and device seconds of what happens between ``start`` and ``stop``, and peak memory above the loaded model."""

    def __init__(self) -> None:
        self._before = _resident()

    def start(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> tuple[float, float, float]:
        wall = time.perf_counter() - self._wall
        return wall, time.process_time() - self._cpu, wall

    def memory(self) -> int:
        return _peak() - self._before


class _CudaClock(_HostClock):
    """The same on a CUDA device, from idle to idle; memory is what PyTorch allocated there."""

    def __init__(self, device: str) -> None:
        import torch

        super().__init__()
        self._cuda, self._device = torch.cuda, device
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        self._before = torch.cuda.memory_allocated(device)

    def start(self) -> None:
        self._cuda.synchronize(self._device)
        self._cuda.reset_peak_memory_stats(self._device)
        super().start()
        self._events[0].record()

    def stop(self) -> tuple[float, float, float]:
        self._events[1].record()
        self._cuda.synchronize(self._device)
        wall, cpu, _ = super().stop()
        return wall, cpu, self._events[0].elapsed_time(self._events[1]) / 1000

    def memory(self) -> int:
        return int(self._cuda.max_memory_allocated(self._device)) - self._before


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass(frozen=True, kw_only=True)
class Step:
    """One measured step: wall, CPU and device seconds, loss, useful tokens, peak memory above the loaded model in bytes."""

    wall: float
    cpu: float
    device: float
    loss: float
    tokens: int
    memory: int


class Worker:
    """A contender in its own process."""

    def __init__(self, kind: str, job: Job) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(kind, job, theirs), daemon=True)
        self._process.start()
        theirs.close()  # a worker that dies is then noticed here
        self.source = ""

    def wait(self) -> str:
        """Until the model is loaded; workers that are made one after the other load at the same time.

        Returns:
            Where the rows come from.

        Raises:
            EOFError: the worker died.
        """
        if not self.source:
            self.source = self._pipe.recv()
        return self.source

    def step(self, number: int) -> Step:
        """Run and time one step; EOFError where the worker died (its memory did not suffice, say)."""
        self.wait()
        self._pipe.send(number)
        wall, cpu, device, loss, tokens, memory = self._pipe.recv()
        return Step(wall=wall, cpu=cpu, device=device, loss=loss, tokens=tokens, memory=memory)

    def close(self) -> None:
        """Let it end; one that died already is no error."""
        with contextlib.suppress(OSError, EOFError):
            self.wait()
            self._pipe.send(None)
        self._process.join()
