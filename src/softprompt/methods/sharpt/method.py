"""SharPT on a target as a method: the generator tuned with the skills frozen (Eq. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from softprompt import artifacts
from softprompt.backbones.base import Backbone
from softprompt.errors import UsageError, one_line
from softprompt.methods.method import OfRows, Result, Target, Work, result_of
from softprompt.methods.sharpt.cache import CachedEncoder
from softprompt.methods.sharpt.space import Space, check_belongs, generator_names, space_encoder
from softprompt.methods.sharpt.train import encode_run, fingerprints
from softprompt.methods.sharpt.union import names_of
from softprompt.prompts.latent import LatentPrompts
from softprompt.training.data import TaskData
from softprompt.training.loop import train_prompts
from softprompt.training.runs import Run, RunResult
from softprompt.training.settings import LoopSettings, TrainSettings


@dataclass(frozen=True, kw_only=True)
class AdaptedPrompt:
    """The generator tuned on one target task with one seed.

    Attributes:
        task: name of the target task.
        seed: of the run.
        space: kind ``prompt``; the best checkpoint by validation.
        result: of its training.
    """

    task: str
    seed: int
    space: Space
    result: RunResult

    def __repr__(self) -> str:
        return one_line(f"<AdaptedPrompt {self.space.name}: task {self.task}, seed {self.seed}>")

    @property
    def tuned(self) -> int:
        """Numbers tuned for the target: the generator's, not the frozen skills'."""
        return sum(self.space.tensors[name].numel() for name in generator_names(self.space.tensors))


class SharPT(OfRows):
    """The generator of a latent space, tuned on the target.

    Args:
        space: from source training.
        encoder: the one it was trained with.
        settings: of target training; its prompt_length must be the space's.
        name: of the method.
    """

    def __init__(self, space: Space, encoder: CachedEncoder, settings: TrainSettings, *, name: str = "sharpt") -> None:
        self.space, self.encoder, self.settings, self.name = space, encoder, settings, name

    @property
    def limits(self) -> LoopSettings:
        """See `OfRows`."""
        return self.settings

    def plain(self) -> dict[str, Any]:
        """See `Method.plain`."""
        return {"target": asdict(self.settings), "space": self.space.name, "encoder": self.encoder.fingerprint}

    def run(self, work: Work, target: Target, seeds: Sequence[int]) -> Result:
        """See `Method.run`; what is delivered are the generator's tensors."""
        return self.run_all(work, [target], seeds)[0]

    def run_all(self, work: Work, targets: Sequence[Target], seeds: Sequence[int]) -> list[Result]:
        """`run` for several targets, all of whose runs train as one group."""
        adapted = self.adapt(work, targets, seeds)
        found = []
        for n, target in enumerate(targets):
            own = adapted[n * len(seeds) : (n + 1) * len(seeds)]
            results = [made.result for made in own]
            one = result_of(self.name, target, results, work.backbone, sources=((self.space.name, 1.0),))
            one.tuned = own[0].tuned
            found.append(one)
        return found

    def adapt(self, work: Work, targets: Sequence[Target], seeds: Sequence[int] = (0,)) -> list[AdaptedPrompt]:
        """Tune the generator on target tasks with E frozen; all tasks and seeds train together as separate runs.

        Returns:
            One prompt a target and seed, targets outermost; its predictions are of the target's reporting rows.

        Raises:
            UsageError: no target, another prompt_length, or a target whose training rows have one class.
            IncompatibleBackboneError: another backbone or encoder.
        """
        self.check(work.backbone, targets)
        pairs = [(target, seed) for target in targets for seed in seeds]
        runs = [target.run(f"{target.name}-seed{seed}", seed) for target, seed in pairs]
        names = (*self.space.task_names, *names_of(target.data.task for target in targets))
        task_names = names if self.space.task_names else ()
        prompts = self.space.prompter(
            work.backbone,
            self.encoder,
            runs=len(runs),
            tuned=True,
            keys=[run.name for run in runs],
            task_names=task_names,
        )
        costs = [encode_run(self.encoder, run, self.settings, task_names) for run in runs]
        identity = self._identity(task_names)
        results = train_prompts(
            work.backbone, prompts, runs, self.settings, work.folder, resume=work.resume,
            observer=work.observer(self.name, len(runs)), extra_identity=identity,
        )  # fmt: skip
        for result, cost in zip(results, costs, strict=True):
            result.encoder_tokens = cost
        return [
            self._adapted(work.backbone, prompts, n, target, run, result, identity["space"])
            for n, ((target, _), run, result) in enumerate(zip(pairs, runs, results, strict=True))
        ]

    def check(self, backbone: Backbone, targets: Sequence[Target]) -> None:
        """Refuse before anything is trained what `adapt` cannot do; it raises the same."""
        check_belongs(self.space, backbone, self.encoder)
        if not targets:
            raise UsageError("no target task was given; name at least one.")
        if self.settings.prompt_length != self.space.prompt_length:
            raise UsageError(
                f"prompt_length {self.settings.prompt_length} was asked for, and the generator of {self.space.name!r} makes "
                f"{self.space.prompt_length} tokens; set prompt_length to {self.space.prompt_length}."
            )
        for target in targets:
            check_classes(target.data)

    def _identity(self, task_names: Sequence[str]) -> dict[str, Any]:
        return {
            "sharpt": "target",
            "space": artifacts.sha256_bytes(artifacts.tensor_bytes(self.space.tensors)),
            "encoder": self.encoder.fingerprint,
            "settings": asdict(self.settings),
            "task_names": sorted(set(task_names)),
        }

    def _adapted(
        self, backbone: Backbone, prompts: LatentPrompts, place: int, target: Target, run: Run, result: RunResult, origin: str
    ) -> AdaptedPrompt:  # fmt: skip
        """The prompt of a run: its best checkpoint."""
        task = target.data.task
        training = {
            "task": task.name, "space": self.space.name, "space_sha256": origin, "data": fingerprints([target.data]),
            **result.plain(),
        }  # fmt: skip
        space = Space.of(
            prompts, backbone, name=run.name, kind="prompt", run=place, tensors=result.best or result.final,
            training=training, wording=None if task.wording is None else task.wording.record(),
        )  # fmt: skip
        return AdaptedPrompt(task=task.name, seed=run.seed, space=space, result=result)


def as_strategy(space: Space, backbone: Backbone, train: TrainSettings, cache: Path | None = None) -> SharPT:
    """SharPT as a transfer tries it: the settings of its other runs, with the space's prompt length.

    Args:
        space: from source training.
        backbone: frozen; the one the space was trained on.
        train: settings of the transfer's other runs.
        cache: a folder that keeps the instance encodings; None keeps them in memory.

    Raises:
        IncompatibleBackboneError: another backbone, or the space's encoder does not load.
    """
    settings = train.having(prompt_length=space.prompt_length, embedding_step=0)
    return SharPT(space, space_encoder(space, backbone, cache), settings)


def check_classes(target: TaskData) -> None:
    """Refuses a target whose training rows all have the same label.

    Raises:
        UsageError: with the label and the number of rows.
    """
    if not target.task.labels or len(target.task.labels) < 2:
        return
    answers = {example.targets for example in target.train.examples}
    if len(answers) == 1:
        rows = f"{len(target.train)} training row{'s' if len(target.train) > 1 else ''}"
        raise UsageError(
            f"target task {target.task.name!r} has {rows}, all of the class {answers.pop()!r}; "
            f"give rows of at least two of its classes ({', '.join(target.task.labels)})."
        )
