"""The study file: what a transfer study compares (SPoT section 3.1; Table 1 for source mixtures).

    name = "small"
    backbone = "builtin"
    sources = ["mnli", "my-mix"]           # tasks, names under [mixtures], or the papers' mixtures (glue, nli, ...)
    targets = ["cb", "copa"]
    seeds = [0, 1, 2]

    [source]                               # source tuning: a recipe and changes to it
    recipe = "spot"
    [target]                               # target tuning, from scratch and from source prompts
    recipe = "spot-target"
    [embedding]
    step = 10000
    [strategies]
    best_of_top_k = [1, 3, 6, 9, 12, 15]
    [mixtures]
    my-mix = ["cola", "sst2"]
    [rows.c4]                              # at most so many rows of one task
    train = 100000
    validation = 1000

An unknown key is refused with the nearest name.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from softprompt.artifacts import check_name
from softprompt.errors import DataError, UnknownNameError, UsageError
from softprompt.fields import Amount, Count, Settings, Share, Whole
from softprompt.methods.spot.predictor_names import PREDICTORS
from softprompt.methods.spot.race import KEEP, LOOK_ROWS
from softprompt.tasks.mixture import MIXTURES, load_mixture
from softprompt.training.recipes import recipe
from softprompt.training.settings import TrainSettings

Protocol = Literal["paper", "halves"]
Similarity = Literal["average", "per_token"]
SIMILARITIES: tuple[Similarity, ...] = get_args(Similarity)
"""Of task embeddings, as `softprompt.library.similarity` has them."""
Tuned = Literal["scratch", "transfer"]
TUNED: tuple[Tuned, ...] = get_args(Tuned)
"""How prompts of targets start."""
KS = (1, 3, 6, 9, 12, 15)
"""How many source prompts best_of_top_k tries, as in SPoT's Table 3."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingSettings(Settings):
    """Task embeddings.

    Attributes:
        step: the step whose prompt is the embedding (SPoT: 10,000).
        other_steps: further steps to compare with (footnote 13): checkpoints of the same runs, which cost nothing; one
            beyond a run's end costs a tuning of that many steps.
        best: whether the best checkpoints are compared as embeddings too; costs nothing.
    """

    step: Count
    other_steps: tuple[Count, ...] = ()
    best: bool = True


@dataclass(frozen=True, kw_only=True)
class StrategySettings(Settings):
    """Ways of choosing source prompts that the study compares.

    Attributes:
        similarities: which similarities rank the source prompts.
        best_of_top_k: values of k; costs nothing beyond the transfers of the study.
        weighted_average: values of k; one tuning a target and seed each.
        multitask_mixture: values of k; one source tuning and one target tuning a target and seed each.
        tuned_similarity: the ranking that the last two use.
        predictors: further predictors of `softprompt.methods.spot.predictor_names.PREDICTORS`, measured for every source prompt and target.
        race: whether a race over all source prompts (`softprompt.methods.spot.race`) is run for every target and seed, for its
            measured score and cost.
        race_keep: share of its field that survives each rung, in (0, 1).
        race_rows: at most this many of the rows that choose checkpoints rank the field at a rung; 0 for all.
    """

    similarities: tuple[Similarity, ...] = SIMILARITIES
    best_of_top_k: tuple[Count, ...] = KS
    weighted_average: tuple[Count, ...] = ()
    multitask_mixture: tuple[Count, ...] = ()
    tuned_similarity: Similarity = "per_token"
    predictors: tuple[str, ...] = ()
    race: bool = False
    race_keep: Share = KEEP
    race_rows: Whole = LOOK_ROWS

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.predictors:
            if name not in PREDICTORS:
                raise UnknownNameError("predictor", name, PREDICTORS)


METHODS = ("sharpt", "model_tuning", "multitask_model_tuning", "lora", "prompt_design")
"""Other methods that a study can compare transfer with."""
SHARPT_ABLATIONS = ("no-source-training", "no-latent-space", "generator-only")
SHARPT_UNTRAINED = ("no-source-training", "generator-only")
"""Ablations of SharPT that a study can run beside it, and those without source training; see `softprompt.methods.sharpt.recipes.SharPTRecipe.ablated`."""


@dataclass(frozen=True, kw_only=True)
class SharPTChoice(Settings):
    """SharPT as an arm of a study.

    Attributes:
        recipe: ``paper``, ``balanced`` or ``quick``.
        encoder: instance encoder, as `softprompt.methods.sharpt.encoders.load_encoder` takes it.
        skills: K; 0 for the recipe's.
        prompt_length: P; 0 for the recipe's.
        learning_rate: on sources and targets; 0 for the recipe's. A backbone whose prompts want a smaller rate wants it here.
        source_steps: steps of source training; 0 for the recipe's.
        source_eval_every: steps between its looks at validation rows; 0 for as many as the study's source prompts have.
        target_steps: steps on a target; 0 for the recipe's.
        target_batch_size: rows in each of them; 0 for the recipe's.
        ablations: of `SHARPT_ABLATIONS`, each run like SharPT itself (SharPT Tables 2 and 3).
    """

    recipe: str = "paper"
    encoder: str = "auto"
    skills: Whole = 0
    prompt_length: Whole = 0
    learning_rate: Amount = 0.0
    source_steps: Whole = 0
    source_eval_every: Whole = 0
    target_steps: Whole = 0
    target_batch_size: Whole = 0
    ablations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.ablations:
            if name not in SHARPT_ABLATIONS:
                raise UnknownNameError("ablation of SharPT", name, SHARPT_ABLATIONS)


@dataclass(frozen=True, kw_only=True)
class ModelTuningChoice(Settings):
    """Model tuning, plain and multi-task, as arms of a study.

    Attributes:
        recipe: a name that `softprompt.training.recipes.tune_recipe` knows.
        steps: on a target; 0 for the recipe's.
        source_steps: of multi-task model tuning on all sources; 0 for as many as on a target.
    """

    recipe: str = "model-tuning"
    steps: Whole = 0
    source_steps: Whole = 0


@dataclass(frozen=True, kw_only=True)
class LoraChoice(Settings):
    """LoRA as a method of a study.

    Attributes:
        recipe: a name that `softprompt.training.recipes.tune_recipe` knows.
        steps: on a target; 0 for the recipe's.
        rank: of the adapters.
    """

    recipe: str = "lora"
    steps: Whole = 0
    rank: Count = 8


@dataclass(frozen=True, kw_only=True)
class DesignChoice(Settings):
    """Prompt design as a method of a study.

    Attributes:
        shots: training examples in the context, fewer where they do not fit.
    """

    shots: Whole = 16


@dataclass(frozen=True, kw_only=True)
class RowLimits(Settings):
    """At most so many rows of one task.

    Attributes:
        train: of its training split; 0 for the study's own limit.
        validation: likewise.
    """

    train: Whole = 0
    validation: Whole = 0


@dataclass(frozen=True, kw_only=True)
class Study(Settings):
    """A transfer study.

    Attributes:
        name: safe as a folder name.
        title: one line for the report.
        backbone: what `load_backbone` takes.
        dtype: of the backbone's weights; ``auto`` chooses for the device.
        data: folder with the tasks' files; empty for generated tasks, ``$SOFTPROMPT_DATA`` or the hub.
        sources: source tasks or names of mixtures; may be empty where methods that need none are compared.
        targets: target tasks.
        seeds: seeds of source tuning, of tuning from scratch and of transfer; prompt and target run are paired by seed.
        scratch_seeds: further runs from scratch on each target, for best-of-as-many comparisons.
        protocol: ``paper`` chooses checkpoints on all of validation; ``halves`` chooses them on one half and
            reports on the other.
        train_rows: at most this many training rows of a task; 0 for all.
        target_train_rows: the same for targets alone, e.g. 64 for a study of few rows; 0 for `train_rows`.
        validation_rows: at most this many validation rows of a task; 0 for all.
        target_validation_rows: the same for targets alone; 0 for `validation_rows`.
        group: most prompts that train together in one batch.
        source: settings of source tuning.
        target: settings of tuning from scratch and from source prompts.
        embedding: task embeddings.
        strategies: what is compared.
        tuned: which prompts are tuned on the targets: from ``scratch``, and by ``transfer`` from source prompts.
        methods: other methods to compare with: ``sharpt``, ``model_tuning``, ``multitask_model_tuning``.
        sharpt: SharPT's settings, where it is among the methods.
        model_tuning: those of model tuning, plain and multi-task.
        lora: those of LoRA.
        prompt_design: those of prompt design.
        mixtures: tasks of each source mixture, mixed examples-proportionally (K = 2^19).
        also_on: target -> a further task on whose validation rows its prompts are measured as well (MNLI's mismatched set);
            their score is the mean of both, their checkpoints are chosen on the target's own rows.
        rows: limits of single tasks, which go before the others. A task too large to read whole (C4) needs none: it has
            its own (`Task.stream_rows`).
    """

    name: str
    title: str = ""
    backbone: str = "builtin"
    dtype: str = "auto"
    data: str = ""
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    scratch_seeds: Whole = 0
    protocol: Protocol = "paper"
    train_rows: Whole = 0
    target_train_rows: Whole = 0
    validation_rows: Whole = 0
    target_validation_rows: Whole = 0
    group: Count = 8
    source: TrainSettings
    target: TrainSettings
    embedding: EmbeddingSettings
    strategies: StrategySettings = field(default_factory=StrategySettings)
    tuned: tuple[Tuned, ...] = TUNED
    methods: tuple[str, ...] = ()
    sharpt: SharPTChoice = field(default_factory=SharPTChoice)
    model_tuning: ModelTuningChoice = field(default_factory=ModelTuningChoice)
    lora: LoraChoice = field(default_factory=LoraChoice)
    prompt_design: DesignChoice = field(default_factory=DesignChoice)
    mixtures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rows: Mapping[str, RowLimits] = field(default_factory=dict)
    also_on: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.name, "study name")
        for what, names in (("source", self.sources), ("target", self.targets), ("seed", self.seeds)):
            if not names and (what != "source" or (not self.methods and "transfer" in self.tuned)):
                raise UsageError(f"study '{self.name}' names no {what}s: give at least one.")
            twice = sorted({str(n) for n in names if names.count(n) > 1})
            if twice:
                raise UsageError(f"study '{self.name}' names {what} {', '.join(twice)} twice: name each once.")
        for name in self.methods:
            if name not in METHODS:
                raise UnknownNameError("method", name, METHODS)
        if self.source.prompt_length != self.target.prompt_length:
            raise UsageError(
                f"study '{self.name}' tunes source prompts of {self.source.prompt_length} tokens and target prompts of "
                f"{self.target.prompt_length}: a prompt that is moved keeps its length; give both the same prompt_length."
            )
        both = sorted({task for source in self.sources for task in self.tasks_of(source)} & set(self.targets))
        for limit in ("target_train_rows", "target_validation_rows"):
            if getattr(self, limit) and both:
                raise UsageError(
                    f"study '{self.name}' gives {limit} = {getattr(self, limit)}, and {', '.join(both)} is a source too: "
                    f"a task has one set of rows; leave it out on one side, or leave out {limit}."
                )
        self._check_names()

    def _check_names(self) -> None:
        """That mixtures, starts, further rows and limits name what there is."""
        compared = self.strategies
        if self.tuned != TUNED and (
            compared.weighted_average or compared.multitask_mixture or compared.race or compared.predictors
        ):
            raise UsageError(
                f"study '{self.name}' compares strategies, which need the runs from scratch and the transfers: leave out tuned."
            )
        for name, tasks in self.mixtures.items():
            if not tasks:
                raise UsageError(f"mixture '{name}' of study '{self.name}' has no tasks: name at least one.")
        for name in self.also_on:
            if name not in self.targets:
                raise UnknownNameError(f"target under also_on of study '{self.name}'", name, self.targets)
        for name in self.rows:
            if name not in self.all_tasks:
                raise UnknownNameError(f"task under [rows] of study '{self.name}'", name, self.all_tasks)

    def tasks_of(self, source: str) -> tuple[str, ...]:
        """The tasks a source is tuned on: those of its mixture (the study's or one of the papers'), or the task itself."""
        if source in self.mixtures:
            return tuple(self.mixtures[source])
        return load_mixture(source).tasks if source in MIXTURES or "+" in source else (source,)

    def rows_of(self, task: str) -> dict[str, int | None]:
        """At most so many ``train`` and ``validation`` rows of a task are used; None for all."""
        own, as_target = self.rows.get(task, RowLimits()), task in self.targets
        train = own.train or (as_target and self.target_train_rows) or self.train_rows
        validation = own.validation or (as_target and self.target_validation_rows) or self.validation_rows
        return {"train": train or None, "validation": validation or None}

    @property
    def all_tasks(self) -> tuple[str, ...]:
        """Every task the study reads, each once."""
        names = [task for source in self.sources for task in self.tasks_of(source)]
        return tuple(dict.fromkeys([*names, *self.targets, *self.also_on.values()]))

    @property
    def further_seeds(self) -> tuple[int, ...]:
        """Seeds of the additional runs from scratch: the smallest ones not in use."""
        free = (seed for seed in range(len(self.seeds) + self.scratch_seeds) if seed not in self.seeds)
        return tuple(seed for seed, _ in zip(free, range(self.scratch_seeds), strict=False))


_SECTIONS: Mapping[str, type[Any]] = {
    "strategies": StrategySettings,
    "sharpt": SharPTChoice,
    "model_tuning": ModelTuningChoice,
    "lora": LoraChoice,
    "prompt_design": DesignChoice,
}


def study_of(data: Mapping[str, Any], where: str = "the study") -> Study:
    """A study from plain data: the content of a study file, or what `Study.plain` gave.

    Raises:
        UnknownNameError: an unknown key, with the nearest names.
        UsageError: a value that cannot be.
    """
    values = dict(data)
    _known(values, {f.name for f in fields(Study)}, f"key of {where}")
    for name in ("name", "sources", "targets"):
        if name not in values:
            raise UsageError(f"{where} has no '{name}': add it.")
    made: dict[str, Any] = {
        name: _tuple(values[name]) for name in ("sources", "targets", "seeds", "methods", "tuned") if name in values
    }
    made |= {name: value for name, value in values.items() if name not in made}
    made["source"] = _training(values.get("source", {}), "spot", f"{where}, [source]")
    made["target"] = _training(values.get("target", {}), "spot-target", f"{where}, [target]")
    embedding = {"step": made["target"].embedding_step, **values.get("embedding", {})}
    made["embedding"] = _section(EmbeddingSettings, embedding, f"{where}, [embedding]")
    for name, owner in _SECTIONS.items():
        made[name] = _section(owner, values.get(name, {}), f"{where}, [{name}]")
    made["rows"] = {
        name: _section(RowLimits, limits, f"{where}, [rows.{name}]") for name, limits in values.get("rows", {}).items()
    }
    made["mixtures"] = {name: _tuple(tasks) for name, tasks in values.get("mixtures", {}).items()}
    return Study(**made)


def _training(section: Mapping[str, Any], default: str, where: str) -> TrainSettings:
    values = dict(section)
    name = values.pop("recipe", None)
    known = set(TrainSettings.names())
    _known(values, known | {"recipe"}, f"key of {where}")
    if name is None and known <= set(values):
        return TrainSettings(**values)
    try:
        return recipe(name or default, **values)
    except TypeError as error:
        raise UsageError(f"{where} holds a value of the wrong kind: {error}.") from error


def _section(made: type[Any], values: Mapping[str, Any], where: str) -> Any:
    _known(values, {f.name for f in fields(made)}, f"key of {where}")
    try:
        return made(**{k: _tuple(v) if isinstance(v, (list, tuple)) else v for k, v in values.items()})
    except TypeError as error:
        raise UsageError(f"{where} holds a value of the wrong kind: {error}.") from error
    except UsageError as error:
        if isinstance(error, UnknownNameError):
            raise
        raise UsageError(f"{where}: {error}") from error


def _known(values: Mapping[str, Any], known: set[str], what: str) -> None:
    for name in values:
        if name not in known:
            raise UnknownNameError(what, name, known)


def _tuple(value: Any) -> tuple[Any, ...]:
    if isinstance(value, (str, int)) or not hasattr(value, "__iter__"):
        raise UsageError(f"a list is needed, got {value!r}: write it in brackets.")
    return tuple(value)


def ready_files(folder: str, built: str) -> dict[str, Path]:
    """The TOML files that come along, by name: beside the package in a checkout; inside it where a build has put them there.

    Args:
        folder: below ``recipes`` in a checkout.
        built: below this room in a build.
    """
    folders = (Path(__file__).parents[3] / "recipes" / folder, Path(__file__).parent / built)
    return {path.stem: path for place in folders if place.is_dir() for path in sorted(place.glob("*.toml"))}


def ready_studies() -> dict[str, Path]:
    """The study files that come along, by name."""
    return ready_files("studies", "files")


def toml_of(kind: str, path: str | Path, ready: Mapping[str, Path]) -> tuple[Path, dict[str, Any]]:
    """A TOML file given by its path, or by the name of a ready one, and what it holds.

    Args:
        kind: what it is the file of: ``study``, ``ladder``.
        path: path or name; a path wins.
        ready: the files that come along, by name.

    Raises:
        DataError: the file cannot be read or is not TOML; names the line.
        UnknownNameError: neither a file nor a ready one.
    """
    file = Path(path)
    if not file.is_file():
        if str(path) not in ready:
            raise UnknownNameError(kind, str(path), ready, f"Give the path of a {kind} file or one of these names.")
        file = ready[str(path)]
    try:
        return file, tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as a {kind} file: {error}.") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DataError(f"{file} is not valid TOML: {error}.") from error


def load_study(path: str | Path) -> Study:
    """A study from a TOML file, or by the name of a ready one (``paper``, ``small``, ``demo``, ...).

    Raises:
        DataError: the file cannot be read or is not TOML; names the line.
        UnknownNameError: neither a file nor a ready study, or the file holds an unknown key.
        UsageError: a value that cannot be.
    """
    file, data = toml_of("study", path, ready_studies())
    return study_of(data, str(file))
