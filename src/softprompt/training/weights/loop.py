"""Model tuning and LoRA in the training loop: batches counted in tokens, gradients in float32, the same evaluator as prompts.

Letters: B rows of a step.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softprompt import artifacts
from softprompt import distributed as parallel
from softprompt.backbones.base import Backbone
from softprompt.backbones.engine.host import peak_memory_bytes, start_peak_memory
from softprompt.batch import TokenBatch
from softprompt.errors import NonFiniteError, UsageError
from softprompt.inference.evaluate import EvalJob, Evaluation, evaluate
from softprompt.training.base import LoopGroup
from softprompt.training.group import micro_batches, row_key
from softprompt.training.runs import Run, Status
from softprompt.training.settings import TuneSettings
from softprompt.training.stream import RowStream
from softprompt.training.weights.adafactor import AdamW, FactoredAdafactor
from softprompt.training.weights.live import LiveModel
from softprompt.training.weights.tuned import ModelState, TunedModel, state_of

Pick = tuple[int, int]  # part of the mixture, row in it
_PASS_TOKENS = 512
"""Positions in one forward pass on a CPU: a step in one pass can be half padding, passes hold rows of like length. Smaller ones
spend on adding up gradients what they save."""


def check_budget(run: Run, settings: TuneSettings) -> None:
    """Refuses a token budget that cannot hold the longest training row.

    Raises:
        UsageError: with the row, its tokens and the budget.
    """
    for part in run.train:
        tokens = part.input_lengths + part.target_lengths
        longest = int(np.argmax(tokens))
        if tokens[longest] > settings.batch_tokens:
            raise UsageError(
                f"a batch of {settings.batch_tokens} tokens was asked for, and row {part.examples[longest].key} alone has "
                f"{int(tokens[longest])}; raise --batch-tokens or lower --max-input-tokens."
            )


class TokenStream:
    """Rows in a run's order, as many as fit a budget of input and target tokens, never none.

    Args:
        run: data and seed.
        budget: tokens, at least those of the longest row.
    """

    def __init__(self, run: Run, budget: int) -> None:
        self.run, self.budget = run, budget
        self.stream = RowStream([len(part) for part in run.train], run.rates, run.seed)
        self.tokens = [part.input_lengths + part.target_lengths for part in run.train]
        self.waiting: Pick | None = None

    def take(self) -> list[Pick]:
        """The next step's rows."""
        picks: list[Pick] = []
        used = 0
        while True:
            pick = self.waiting if self.waiting is not None else self.stream.take(1)[0]
            self.waiting = None
            size = int(self.tokens[pick[0]][pick[1]])
            if picks and used + size > self.budget:
                self.waiting = pick
                return picks
            picks.append(pick)
            used += size

    def state(self) -> dict[str, Any]:
        """What ``load`` needs."""
        return {"stream": self.stream.state(), "waiting": self.waiting}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        self.stream.load(state["stream"])
        waiting = state["waiting"]
        self.waiting = None if waiting is None else (int(waiting[0]), int(waiting[1]))


class Tuning(LoopGroup):
    """One tuning in work, a group of one run: model, optimiser, rows and result."""

    settings: TuneSettings
    what = "model tuning"
    remedy = "set checkpointing, lower max_input_tokens, or use a smaller backbone"

    def __init__(
        self, backbone: Backbone, live: LiveModel, run: Run, settings: TuneSettings, folder: Path | None
    ) -> None:
        # Of the whole tensors: in a sharded tuning the masters are this process's rows alone.
        numbers = sum(p.numel() for p in live.parameters.values())
        self.result = TunedModel(name=run.name, seed=run.seed, tuned_parameters=numbers)
        super().__init__(backbone, [run], settings, [self.result])
        self.live, self.run, self.folder, self.sharded = live, run, folder, live.sharded
        self.optimizer: FactoredAdafactor | AdamW = self._make_optimizer(settings.adafactor_step_offset)
        self.rows = TokenStream(run, settings.batch_tokens)
        start_peak_memory(backbone.device)

    def _make_optimizer(self, offset: int) -> FactoredAdafactor | AdamW:
        settings = self.settings
        if settings.optimizer == "adamw":
            return AdamW(self.live.masters, rate=settings.learning_rate, step_offset=offset)
        return self.live.optimizer(settings.learning_rate, offset, settings.parameter_scaling)

    @property
    def pass_tokens(self) -> int:
        """Most positions in one pass of a step: few on a CPU, where the user names no number."""
        few = self.backbone.device.type == "cpu" and not self.settings.micro_batch_tokens
        return min(self.micro_tokens, _PASS_TOKENS) if few else self.micro_tokens

    def begin(self, start: ModelState) -> None:
        device = self.backbone.device
        self.live.load({name: start.weights[name].to(device) for name in self.live.masters})
        if start.moments:
            self.optimizer = self._make_optimizer(self.settings.adafactor_step_offset + start.step)
            self.optimizer.load(self.live.own({name: t.to(device) for name, t in start.moments.items()}))

    def step(self) -> dict[int, str]:
        """One optimiser step.

        Raises:
            NonFiniteError: the loss or its gradient is not finite.
        """
        started = time.perf_counter()
        picks = self.rows.take()
        loss, gradients = self.fitting(lambda: self._gradients(picks))
        norm = self.live.norm(gradients)
        if not np.isfinite(loss) or not bool(torch.isfinite(norm)):
            raise NonFiniteError(
                f"Run '{self.run.name}' met loss {loss} and gradient norm {float(norm)} at step {self.result.steps + 1} of "
                "model tuning; its best checkpoint so far is kept: lower the learning rate or use float32."
            )
        self.optimizer.step(self.result.steps, gradients)
        self.live.publish()
        self.losses[0].append(loss)
        self.step_number += 1
        self.result.steps = self.step_number
        self.result.tokens += sum(int(self.rows.tokens[part][row]) for part, row in picks)
        self.result.seconds += time.perf_counter() - started
        return {}

    def _gradients(self, picks: Sequence[Pick]) -> tuple[float, dict[str, Tensor]]:
        """The step's mean token loss and the gradients of it, summed over micro-batches and processes."""
        self.live.take_gradients()
        self.live.module.train()
        step, seed = self.result.steps, self.run.seed
        pairs = [self.run.train[p].pair(r, row_key(seed, step, p, r)) for p, r in picks]
        lengths = np.asarray([len(inputs) for inputs, _ in pairs])
        targets = sum(len(target) for _, target in pairs)
        total = torch.zeros((), device=self.backbone.device)
        parts = micro_batches(lengths, 0, self.pass_tokens, in_step=self.live.sharded)
        for number, (rows, weight) in enumerate(parts):
            total += weight * self._micro_batch([pairs[int(i)] for i in rows], number, max(1, targets), weight)
        gradients = self.live.take_gradients()
        parallel.sum_over_processes([total])
        if parallel.world()[1] > 1 and not self.live.sharded:  # a process whose share was empty takes part with zeros
            gradients = {n: gradients.get(n, torch.zeros_like(m)) for n, m in self.live.masters.items()}
            parallel.sum_over_processes(gradients.values())
        return float(total), gradients

    def _micro_batch(self, pairs: Sequence[tuple[Any, Any]], number: int, targets: int, weight: float) -> Tensor:
        batch = TokenBatch.of([one for one, _ in pairs], [other for _, other in pairs], device=self.backbone.device)
        with torch.random.fork_rng(devices=_cuda(self.backbone.device)):
            torch.manual_seed(row_key(self.run.seed, self.result.steps, number, parallel.world()[0]))
            losses = self.live.losses(batch)
            loss = (losses.nll_B + self.settings.z_loss * losses.log_z_sq_B).sum() / targets
            # Inside the block: with activation checkpointing the backward pass draws the same dropout again.
            (loss * (weight * self.live.loss_scale)).backward()  # type: ignore[no-untyped-call]
        self.live.collect_gradients()
        return loss.detach()

    def finish(self, runs: Sequence[int], status: Status) -> None:
        if runs:
            self.result.status, self.active = status, []

    def evaluated(self, jobs: Sequence[EvalJob]) -> list[Evaluation]:
        with self.live.evaluating() as tuned:
            return evaluate(
                tuned, None, jobs, max_target_tokens=self.settings.max_target_tokens, batch_tokens=2 * self.micro_tokens
            )

    def keep_best(self, run: int) -> None:
        """In memory, or as ``best.safetensors`` in the run directory."""
        self.result.evidence = {"select_rows": len(self.selecting_rows(run))}
        if self.folder is None:
            self.result.best = self.live.copies()
            return
        weights = self.live.full()
        if parallel.is_main():
            artifacts.write_tensors(self.folder / "best.safetensors", weights)

    def measured(self, keep_final: bool) -> TunedModel:
        """Measure the best checkpoint on its reporting rows and write what there is to write."""
        result = self.result
        if keep_final:
            final, _ = self.state()
            result.last = state_of({n: t.to("cpu", copy=True) for n, t in final.items()}, result.steps)
            if self.folder is not None and parallel.is_main():
                artifacts.write_tensors(self.folder / "final.safetensors", final)
        if self.folder is not None:
            parallel.wait()
            result.best = artifacts.read_tensors(self.folder / "best.safetensors")
        self.live.load({name: t.to(self.backbone.device) for name, t in result.best.items()})
        (found,) = self.evaluated([self.job(0, 0, self.run.report_rows)])
        result.scores, result.predictions = found.scores, found.predictions
        result.eval_tokens += found.tokens
        result.peak_bytes = peak_memory_bytes(self.backbone.device)
        result.evidence |= {
            "report_rows": len(found.predictions),
            "validation": self.run.validation.fingerprint,
            "micro_batch_tokens": self.micro_tokens,
        }
        if self.folder is not None and parallel.is_main():
            artifacts.write_json(self.folder / "result.json", result.plain(), sealed=True)
            if (self.folder / "checkpoints").exists():
                artifacts.remove_folder(self.folder / "checkpoints")
        parallel.wait()
        return result

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors in the model's shapes and plain JSON from which ``load`` continues bit for bit."""
        tensors = {
            **{f"weight.{n}": m for n, m in self.live.full().items()},
            **{f"moment.{n}": m for n, m in self.live.gathered(self.optimizer.state()).items()},
        }
        plain = {"step": self.result.steps, "rows": self.rows.state(), "losses": self.losses[0], "result": self.result.plain(),
                 "micro_tokens": self.micro_tokens}  # fmt: skip
        return tensors, plain

    def load(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Continue from a state, with the shapes that ``state`` gave."""
        device = self.backbone.device
        self.live.load({n: tensors[f"weight.{n}"].to(device) for n in self.live.masters})
        moments = {n: tensors[f"moment.{n}"].to(device) for n in self.optimizer.state()}
        self.optimizer.load(self.live.own(moments))
        self.rows.load(plain["rows"])
        self.losses = [list(plain["losses"])]
        self.micro_tokens, self.step_number = int(plain["micro_tokens"]), int(plain["step"])
        self.result = TunedModel.of_plain(plain["result"])
        self.results, self.active = [self.result], [0] if self.result.status == "running" else []


def _cuda(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []
