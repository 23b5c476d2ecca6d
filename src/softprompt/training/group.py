"""A group of runs that train in one batch on one frozen backbone: its state, and one step.

Letters as in ``backbones/base.py``; N is the number of active runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softprompt import distributed as parallel
from softprompt.backbones.base import Backbone, Dropout
from softprompt.batch import Rows, TokenBatch, on_device
from softprompt.fields import Scoring
from softprompt.inference.evaluate import EvalJob, Evaluation, evaluate, length_batches
from softprompt.prompts.prompter import Prompter
from softprompt.tasks.example import Example
from softprompt.training.base import LoopGroup
from softprompt.training.optim import gradient_norm_N, make_optimizer
from softprompt.training.runs import Run, RunResult, Status
from softprompt.training.settings import TrainSettings
from softprompt.training.stream import RowStream

MASK_64 = (1 << 64) - 1


def row_key(seed: int, step: int, part: int, row: int) -> int:
    """A signed 64-bit key of one row at one step of one run (splitmix64 rounds)."""
    state = 0
    for word in (seed, step, part, row):
        state = (state + 0x9E3779B97F4A7C15 + (word & MASK_64)) & MASK_64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK_64
        state ^= state >> 31
    return state - (1 << 64) if state >= 1 << 63 else state


class Group(LoopGroup):
    """The active runs, their prompter, optimiser and streams.

    Args:
        backbone: frozen.
        prompter: its N runs in the order of ``runs``; taken over and tuned in place.
        runs: what to train.
        settings: shared by all.
    """

    settings: TrainSettings
    what = "backbone"
    remedy = "lower max_input_tokens or prompt_length, or load the backbone in bfloat16"

    def __init__(self, backbone: Backbone, prompter: Prompter, runs: Sequence[Run], settings: TrainSettings) -> None:
        settings = settings.resolved(backbone)
        super().__init__(backbone, runs, settings, [RunResult(name=run.name, seed=run.seed) for run in runs])
        self.prompter, self.least_tokens = prompter, prompter.prompt_length + 1
        self.streams = [RowStream([len(part) for part in run.train], run.rates, run.seed) for run in runs]
        self.optimizer = make_optimizer(prompter.trained(), settings)
        self._last_rows: dict[int, list[tuple[int, int]]] = {}

    # -- one step ---------------------------------------------------------------------------------------------------

    def step(self) -> dict[int, str]:
        """One optimiser step of every active run.

        Returns:
            The runs (by number) that met a loss or gradient that is not finite, with what was found; they are not
            updated and leave the group.
        """
        started = time.perf_counter()
        picks = [(n, part, row) for n, i in enumerate(self.active) for part, row in self._take(i)]
        loss_N, tokens_N = self.fitting(lambda: self._gradients(picks))
        norm_N = gradient_norm_N(self._tuned())
        bad = (~torch.isfinite(loss_N) | ~torch.isfinite(norm_N)).nonzero().flatten().tolist()
        failed = {self.active[n]: self._describe_failure(n, loss_N, norm_N) for n in bad}
        before = {self.active[n]: self.values_of(self.active[n]) for n in bad}
        for tensor in self._tuned().values():
            if bad and tensor.grad is not None:
                tensor.grad[bad] = 0.0
        self.optimizer.step(self.step_number, norm_N.nan_to_num(posinf=1.0))
        self.prompter.after_step(self.step_number + 1)
        self.step_number += 1
        losses, tokens = loss_N.tolist(), tokens_N.tolist()  # at once: each number asked of a device is a wait
        for n, i in enumerate(self.active):
            self.losses[i].append(losses[n])
            result = self.results[i]
            result.steps = self.step_number
            result.tokens += int(tokens[n])
            result.seconds += (time.perf_counter() - started) / len(self.active)
        for i, note in failed.items():
            self.results[i].note = note
            self.results[i].steps -= 1
        self.finish(list(failed), "non_finite")
        for i, values in before.items():
            self.results[i].final = values
        return failed

    def _take(self, run: int) -> list[tuple[int, int]]:
        self._last_rows[run] = self.streams[run].take(self.settings.batch_size)
        return self._last_rows[run]

    def _tuned(self) -> dict[str, Tensor]:
        return {name: t for name, t in self.prompter.trained().items() if t.requires_grad}

    def _gradients(self, picks: Sequence[tuple[int, int, int]]) -> tuple[Tensor, Tensor]:
        """Gradients of every run's loss into the tuned tensors; returns loss_N and positions_N."""
        device = self.backbone.device
        for tensor in self._tuned().values():
            tensor.grad = None
        parts = [self.runs[self.active[n]].train[part] for n, part, _ in picks]
        pairs = [part.pair(row, self._row_key(n, p, row)) for part, (n, p, row) in zip(parts, picks, strict=True)]
        lengths = np.asarray([len(inputs) for inputs, _ in pairs])
        run_B = np.asarray([n for n, _, _ in picks])
        depth_B = np.asarray([len(targets) for _, targets in pairs])
        targets_N = np.maximum(np.bincount(run_B, weights=depth_B, minlength=len(self.active)), 1.0)
        loss_N = torch.zeros(len(self.active), device=device)
        length, in_step = self.prompter.prompt_length, self.backbone.sharded
        for chosen, weight in micro_batches(lengths, length, self.micro_tokens, in_step=in_step):
            rows = [(picks[r], pairs[r]) for r in chosen]
            loss_N += self._micro_batch(rows, [parts[r].examples[picks[r][2]] for r in chosen], targets_N, weight)
        for tensor in self._tuned().values():
            # A process without rows takes part in the sum all the same.
            tensor.grad = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        parallel.sum_over_processes([loss_N, *(t.grad for t in self._tuned().values() if t.grad is not None)])
        positions = lengths + self.prompter.prompt_length + depth_B
        return loss_N, torch.as_tensor(np.bincount(run_B, weights=positions, minlength=len(self.active)))

    def _micro_batch(
        self,
        rows: Sequence[tuple[tuple[int, int, int], tuple[Any, Any]]],
        examples: Sequence[Example],
        targets_N: np.ndarray,
        weight: float,
    ) -> Tensor:
        device, settings = self.backbone.device, self.settings
        picks = [pick for pick, _ in rows]
        run_B = on_device(torch.tensor([n for n, _, _ in picks]), device)
        batch = TokenBatch.of([inputs for _, (inputs, _) in rows], [targets for _, (_, targets) in rows], device=device)
        prompts = self.prompter.prompts(
            Rows(run_B=run_B, inputs=[e.inputs for e in examples], keys=[e.key for e in examples])
        )
        losses = self.backbone.example_losses(batch, prompts, self._dropout(picks))
        weight_B = on_device(torch.tensor([1.0 / targets_N[n] for n, _, _ in picks], dtype=torch.float32), device)
        row_B = (losses.nll_B + settings.z_loss * losses.log_z_sq_B) * weight_B
        if prompts.aux_loss_B is not None:
            row_B = row_B + prompts.aux_loss_B / settings.batch_size
        row_B = row_B * weight
        torch.autograd.backward(row_B.sum())
        return torch.zeros(len(self.active), device=device).index_add_(0, run_B, row_B.detach().float())

    def _dropout(self, picks: Sequence[tuple[int, int, int]]) -> Dropout | None:
        rate = self.settings.dropout
        if not rate or rate == "auto":
            return None
        keys = [self._row_key(*pick) for pick in picks]
        return Dropout(rate=rate, key_B=on_device(torch.tensor(keys), self.backbone.device))

    def _row_key(self, n: int, part: int, row: int) -> int:
        return row_key(self.runs[self.active[n]].seed, self.step_number, part, row)

    def _describe_failure(self, n: int, loss_N: Tensor, norm_N: Tensor) -> str:
        i = self.active[n]
        return (
            f"run '{self.runs[i].name}' met loss {float(loss_N[n])} and gradient norm {float(norm_N[n])} at step "
            f"{self.step_number + 1}, {self._batch_of(i)}"
        )

    def _batch_of(self, i: int) -> str:
        """The rows of a run's last batch, and what to do where they broke it."""
        keys = [self.runs[i].train[part].examples[row].key for part, row in self._last_rows.get(i, [])]
        return (
            f"batch of rows {', '.join(keys[:4])}, ...: its last good checkpoint is kept; lower the learning rate or load the "
            "backbone in float32."
        )

    # -- leaving ----------------------------------------------------------------------------------------------------

    def values_of(self, run: int) -> dict[str, Tensor]:
        """The present tensors of one active run, float32 on the CPU, shapes without the run axis N."""
        n = self.active.index(run)
        tensors = {**self.prompter.trained(), **self.prompter.buffers()}
        return {name: t.detach()[n].to("cpu", copy=True) for name, t in tensors.items()}

    def finish(self, runs: Sequence[int], status: Status) -> None:
        if not runs:
            return
        for i in runs:
            self.results[i].status = status
            self.results[i].final = self.values_of(i)
        keep = [n for n, i in enumerate(self.active) if i not in runs]
        self.active = [self.active[n] for n in keep]
        if keep:
            self.prompter = self.prompter.keep(keep)
            self.optimizer = self.optimizer.keep(self._tuned(), keep)

    def drop_not_finite(self) -> None:
        """Let runs leave whose last update gave NaN or infinity, before anything of it is kept: its loss would be seen only
        at the next step, and a validation in between could choose it."""
        finite_N = torch.ones(len(self.active), dtype=torch.bool)
        for tensor in self._tuned().values():
            finite_N &= tensor.detach().isfinite().flatten(1).all(dim=1).cpu()
        failed = [self.active[n] for n in (~finite_N).nonzero().flatten().tolist()]
        for i in failed:
            self.results[
                i
            ].note = f"run '{self.runs[i].name}' got NaN or infinity from its update at step {self.step_number}, {self._batch_of(i)}"
        self.finish(failed, "non_finite")
        for i in failed:
            self.results[i].final = dict(self.results[i].best) or self.results[i].final

    # -- validation -------------------------------------------------------------------------------------------------

    def evaluated(self, jobs: Sequence[EvalJob]) -> list[Evaluation]:
        return evaluate(
            self.backbone, self.prompter, jobs, max_target_tokens=self.settings.max_target_tokens,
            batch_tokens=2 * self.micro_tokens,
        )  # fmt: skip

    def scoring(self, run: int) -> Scoring:
        """Scoring by label only where its task, or a part of it, has labels."""
        return self.settings.scoring if self.runs[run].task.scored_by_label else "generate"

    def keep_best(self, run: int) -> None:
        self.results[run].best = self.values_of(run)

    def keep_on_the_way(self) -> None:
        """The task embeddings of all active runs, and the tensors of those that want them at this step."""
        if self.active and self.step_number == self.settings.embedding_step:
            self.drop_not_finite()
            for i in self.active:
                self.results[i].embedding = self.values_of(i)
        for i in self.active:
            if self.step_number in self.runs[i].kept_steps:
                self.results[i].kept[self.step_number] = self.values_of(i)

    # -- state ------------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors, most [N, ...], and plain JSON from which ``load`` continues bit for bit."""
        tensors: dict[str, Tensor] = {}
        if self.active:
            tensors.update({f"trained.{n}": t.detach().cpu() for n, t in self.prompter.trained().items()})
            tensors.update({f"buffer.{n}": t.detach().cpu() for n, t in self.prompter.buffers().items()})
            tensors.update({f"optimizer.{n}": t.cpu() for n, t in self.optimizer.state().items()})
        for i, result in enumerate(self.results):
            tensors.update({f"run.{i}.{n}": t for n, t in result.tensors().items()})
        plain = {
            "step": self.step_number,
            "active": self.active,
            "micro_tokens": self.micro_tokens,
            "streams": [stream.state() for stream in self.streams],
            "losses": self.losses,
            "results": [result.plain() for result in self.results],
        }
        return {n: t.contiguous() for n, t in tensors.items()}, plain

    def load(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Continue from a state, with the shapes that ``state`` gave."""
        active = [int(i) for i in plain["active"]]
        if active and active != self.active:
            self.prompter = self.prompter.keep(active)
            self.optimizer = make_optimizer(self.prompter.trained(), self.settings)
        self.active = active
        # Part of the grouping, and so of the bits: halved where memory ran out. Older checkpoints do not hold it.
        self.micro_tokens = int(plain.get("micro_tokens", self.micro_tokens))
        self.step_number = int(plain["step"])
        for stream, state in zip(self.streams, plain["streams"], strict=True):
            stream.load(state)
        self.losses = [list(values) for values in plain["losses"]]
        self.results = [RunResult.of_plain(data) for data in plain["results"]]
        for i, result in enumerate(self.results):
            prefix = f"run.{i}."
            result.take_tensors({n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)})
        if active:
            with torch.no_grad():
                for kind, live in (("trained", self.prompter.trained()), ("buffer", self.prompter.buffers())):
                    for name, tensor in live.items():
                        tensor.copy_(tensors[f"{kind}.{name}"])
            prefix = "optimizer."
            self.optimizer.load({n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)})


def micro_batches(
    lengths: np.ndarray, prompt_length: int, most: int, *, in_step: bool
) -> list[tuple[np.ndarray, float]]:
    """The rows of this process's forward passes in a step, and the weight of their losses.

    Which rows are a process's own does not depend on ``most``, so a process whose memory is short may halve it alone.

    Args:
        lengths: input tokens of the step's rows, the same on every process.
        prompt_length: tokens before each.
        most: padded positions in one forward pass.
        in_step: every process makes as many passes, some of them with a row of weight 0.
    """
    rank, processes = parallel.world()
    order = np.argsort(-lengths, kind="stable")

    def share(process: int) -> list[np.ndarray]:
        mine = order[process::processes]
        return [mine[rows] for rows in length_batches(lengths[mine], prompt_length, most)]

    own = [(rows, 1.0) for rows in share(rank)]
    if in_step:  # gathering weights takes every process, with rows or without
        passes = max(len(share(process)) for process in range(processes))
        own += [(order[-1:], 0.0)] * (passes - len(own))
    return own
