"""`pretrain`: one readable loop over steps, resumable to the bit, with validation losses as JSON lines.

Every step's batches are a function of (seed, step, rank) alone; the state is weights, optimisers and the step.
With ``torch.distributed`` initialised, gradients are averaged over the processes and rank 0 writes.
"""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from embedded_backbone import card, checkpoint, setup
from embedded_backbone.batches import Coder, candidate_words, reading_batches, reading_examples, span_batches
from embedded_backbone.corpus import Corpus, TextFile, text_files
from embedded_backbone.model import TokenBatch, Trainee, split_parameters, target_weights
from embedded_backbone.settings import PretrainSettings
from embedded_backbone.shards import VOCABULARY, TokenShards, is_shards
from softprompt.errors import NonFiniteError, UsageError

Batches = list[tuple[TokenBatch, list[str]]]
Log = Callable[[dict[str, Any]], None]
Text = Corpus | TokenShards


def pretrain(
    settings: PretrainSettings,
    *,
    log: Log | None = None,
    stop_after: int | None = None,
    stop: Callable[[], bool] | None = None,
) -> Path:
    """Train, save, and write the model with its card; returns the model's folder.

    Args:
        log: called with every metrics line.
        stop_after: leave after this step, with the state saved (a run that is called again goes on from there).
        stop: asked after every step; True leaves there, with the state saved.
    """
    settings.folder.mkdir(parents=True, exist_ok=True)
    corpus, held_out, files = _read_text(settings)
    trainee, tokenizer = setup.build(settings, corpus)
    run = Run(settings=settings, trainee=trainee, tokenizer=tokenizer, corpus=corpus, held_out=held_out, log=log)
    run.restore()
    last = min(settings.steps, stop_after or settings.steps)
    while run.step < last:
        run.one_step()
        if run.step % settings.validate_every == 0 or run.step == settings.steps:
            run.validate()
        leave = stop is not None and stop()
        if run.step % settings.save_every == 0 or run.step == last or leave:
            run.save()
        if leave:
            break
    return run.export(files)


def _read_text(settings: PretrainSettings) -> tuple[Text, Text, list[TextFile]]:
    """What trains, what is held out, and the text files both come from."""
    if not is_shards(settings.text):
        files = text_files(settings.text, settings.names)
        train, held_out = (Corpus.load(files, held_out=part, limit=settings.documents) for part in (False, True))
        return train, held_out, files
    if settings.architecture != "t5" or settings.objective != "span":
        raise UsageError(
            f"pretrain: {settings.text} holds tokenised shards, which serve --architecture t5 --objective span alone: "
            "name a folder of text files."
        )
    shards = TokenShards.load(settings.text)
    place = settings.folder / VOCABULARY
    if not place.exists():
        place.write_bytes((settings.text / VOCABULARY).read_bytes())
    return shards, TokenShards.load(settings.text, held_out=True), shards.files


class Run:
    """The state of a run and what is done to it; no method but ``one_step`` changes a weight."""

    def __init__(
        self,
        *,
        settings: PretrainSettings,
        trainee: Trainee,
        tokenizer: Any,
        corpus: Text,
        held_out: Text,
        log: Log | None,
    ) -> None:
        self.settings, self.trainee, self.tokenizer, self.log = settings, trainee.to(settings.device), tokenizer, log
        self.corpus, self.held_out, self.step, self.seconds, self.tokens = corpus, held_out, 0, 0.0, 0
        self.last_validation: dict[str, float] = {}
        self.recent: list[tuple[float, float]] = []
        matrices, rest, vectors = split_parameters(trainee)
        self.trained = [*matrices, *rest, *vectors]
        muon = torch.optim.Muon(
            matrices,
            lr=settings.matrix_rate,
            momentum=0.95,
            weight_decay=settings.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        groups: list[dict[str, Any]] = [
            {"params": rest, "lr": settings.rest_rate},
            {"params": vectors, "lr": settings.vector_rate},
        ]
        adam = torch.optim.AdamW([g for g in groups if g["params"]], betas=(0.9, 0.98), weight_decay=0.0)
        self.optimisers: dict[str, torch.optim.Optimizer] = {"muon": muon, "adam": adam}
        self.rates = {name: [group["lr"] for group in each.param_groups] for name, each in self.optimisers.items()}
        self.teacher = setup.teacher(trainee, tokenizer, settings) if trainee.bert else None
        self.always = setup.label_ids(tokenizer)
        if settings.compile:
            setup.compile_encoder(trainee)

    @property
    def place(self) -> tuple[int, int]:
        """This process's rank and how many there are."""
        live = torch.distributed.is_available() and torch.distributed.is_initialized()
        return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if live else (0, 1)

    def batches(self, step: int, corpus: Text, count: int, name: str) -> Batches:
        """The micro-batches of one step: the same for the same settings, step and rank."""
        settings, (rank, _) = self.settings, self.place
        rng = random.Random(f"{settings.seed}:{name}:{step}:{rank}")
        progress = step / settings.steps
        limit = settings.inputs_tokens if progress >= settings.short_share else max(16, settings.inputs_tokens // 2)
        coder = Coder(
            tokenizer=self.tokenizer, inputs_limit=limit, targets_limit=settings.targets_tokens,
            slot_rows=settings.slot_rows if self.trainee.slots is not None else 0,
        )  # fmt: skip
        if settings.objective == "span":
            prefix = progress >= 1 - settings.adapt
            if isinstance(corpus, TokenShards):
                return corpus.batches(
                    rng, self.tokenizer, count, length=limit, micro=settings.micro_batch, prefix=prefix,
                    noise=settings.noise,
                )  # fmt: skip
            return span_batches(
                rng, coder, corpus, count, micro=settings.micro_batch, prefix=prefix, noise=settings.noise
            )
        assert isinstance(corpus, Corpus)
        examples = reading_examples(
            rng, corpus, self.teacher, count, telling=settings.telling, short=min(1.0, 2 * progress)
        )
        return reading_batches(rng, coder, examples, micro=settings.micro_batch, learn=settings.slot_gradients)

    def one_step(self) -> None:
        """Draw batches, sum weighted gradients, average over processes, update."""
        settings, world, start = self.settings, self.place[1], time.monotonic()
        batches = self.batches(self.step, self.corpus, settings.batch // world, "train")
        on_device = [setup.to_device(batch, settings.device) for batch, _ in batches]
        whole = self.step >= settings.steps * (1 - settings.full_softmax)
        candidates = None
        if not whole:
            drawn = candidate_words(
                [batch for batch, _ in batches],
                self.always,
                len(self.tokenizer),
                settings.candidates,
                settings.seed + self.step,
            )
            candidates = None if drawn is None else drawn.to(settings.device)
        weights = [target_weights(batch) for batch in on_device]
        scale = torch.stack([weight.sum() for weight in weights]).sum()
        summed = torch.zeros((), device=settings.device)
        for batch, weight in zip(on_device, weights, strict=True):
            with torch.autocast(settings.device.split(":")[0], dtype=torch.bfloat16):
                losses = self.trainee.losses(batch, candidates)
            loss = (losses * weight).sum() / scale
            torch.autograd.backward(loss)
            summed += loss.detach()
        self._update(world)
        total = float(summed)  # the one wait of a step: the device works on while the host goes ahead
        self.step += 1
        self.seconds += time.monotonic() - start
        self.tokens += world * sum(int(b.mask_BT.sum()) + int((b.labels_BD >= 0).sum()) for b, _ in batches)
        self.recent.append((total, time.monotonic() - start))
        if not total == total or total == float("inf"):
            raise NonFiniteError(
                f"pretrain: the loss at step {self.step} is {total}; lower the rates, or resume the saved state."
            )
        if self.step % 20 == 0:
            self._write(loss=sum(t for t, _ in self.recent) / len(self.recent), part="train", whole_vocabulary=whole)
            self.recent.clear()

    def _update(self, world: int) -> None:
        for parameter in self.trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if world > 1:
                torch.distributed.all_reduce(parameter.grad)
                parameter.grad /= world
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        for name, optimiser in self.optimisers.items():
            for group, rate in zip(optimiser.param_groups, self.rates[name], strict=True):
                group["lr"] = rate * self.settings.rate(self.step)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def validate(self) -> dict[str, float]:
        """Held-out cross-entropy for a token against all words, for the whole mixture and for each kind."""
        sums: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)
        batches = self.batches(self.settings.steps - 1, self.held_out, self.settings.validation_examples, "held out")
        for batch, kinds in batches:
            on_device = setup.to_device(batch, self.settings.device)
            with torch.no_grad(), torch.autocast(self.settings.device.split(":")[0], dtype=torch.bfloat16):
                losses = self.trainee.losses(on_device, None).float().cpu()
            lengths = [int(n) for n in (batch.labels_BD >= 0).sum(1)]
            for kind, part in zip(kinds, torch.split(losses, lengths), strict=True):
                for name in (kind, "all"):
                    sums[name] += float(part.sum())
                    counts[name] += len(part)
        self.last_validation = {name: round(sums[name] / counts[name], 4) for name in sorted(sums)}
        self._write(part="held out", loss=self.last_validation["all"], kinds=self.last_validation)
        return self.last_validation

    def _write(self, *, part: str, loss: float, **more: Any) -> None:
        line = {
            "step": self.step, "part": part, "loss": round(loss, 4), "rate": round(self.settings.rate(self.step), 4),
            "tokens": self.tokens, "seconds": round(self.seconds, 1), "tokens_per_s": round(self.tokens / max(self.seconds, 1e-9)),
            **more,
        }  # fmt: skip
        if self.place[0] == 0:
            with (self.settings.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            if self.log is not None:
                self.log(line)

    def save(self) -> None:
        """Write the whole state, atomically."""
        tensors: dict[str, Tensor] = {f"weight.{n}": p for n, p in self.trainee.named_parameters() if p.requires_grad}
        for name, optimiser in self.optimisers.items():
            tensors |= checkpoint.optimiser_tensors(name, optimiser)
        facts = {"step": self.step, "tokens": self.tokens, "seconds": self.seconds, "settings": self.settings.as_json()}
        if self.place[0] == 0:
            checkpoint.save_state(self.settings.folder, tensors, facts)

    def restore(self) -> None:
        """Go on from the saved state, where there is one."""
        found = checkpoint.load_state(self.settings.folder)
        if found is None:
            return
        tensors, facts = found
        with torch.no_grad():
            for name, parameter in self.trainee.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(tensors[f"weight.{name}"])
        for name, optimiser in self.optimisers.items():
            checkpoint.restore_optimiser(name, optimiser, tensors)
        self.step, self.tokens, self.seconds = facts["step"], facts["tokens"], facts["seconds"]

    def export(self, files: list[Any]) -> Path:
        """The model as it ships, its tokenizer where it is our own, and its card."""
        folder = self.settings.folder / "model"
        if self.place[0] == 0:
            setup.export(self.trainee, self.tokenizer, self.settings, folder)
            facts = {
                "step": self.step,
                "tokens": self.tokens,
                "seconds": self.seconds,
                "held_out": self.last_validation,
            }
            card.write(folder, self.settings, files, facts)
        return folder
