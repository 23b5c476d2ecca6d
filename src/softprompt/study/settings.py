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
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from softprompt.artifacts import check_name
from softprompt.errors import DataError, UnknownNameError, UsageError
from softprompt.methods.spot.predictor_names import PREDICTORS
from softprompt.tasks.mixture import MIXTURES, load_mixture
from softprompt.training.recipes import recipe
from softprompt.training.settings import TrainSettings

Protocol = Literal["paper", "halves"]
SIMILARITIES = ("average", "per_token")
"""Of task embeddings, as `softprompt.library.similarity` has them."""
TUNED = ("scratch", "transfer")
"""How prompts of targets start."""
KS = (1, 3, 6, 9, 12, 15)
"""How many source prompts best_of_top_k tries, as in SPoT's Table 3."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingSettings:
    """Task embeddings.

    Attributes:
        step: the step whose prompt is the embedding (SPoT: 10,000).
        other_steps: further steps to compare with (footnote 13): checkpoints of the same runs, which cost nothing; one
            beyond a run's end costs a tuning of that many steps.
        best: whether the best checkpoints are compared as embeddings too; costs nothing.
    """

    step: int
    other_steps: tuple[int, ...] = ()
    best: bool = True

    def __post_init__(self) -> None:
        for step in (self.step, *self.other_steps):
            if not isinstance(step, int) or step < 1:
                raise UsageError(f"an embedding step must be a whole number of at least 1, got {step!r}.")


@dataclass(frozen=True, kw_only=True)
class StrategySettings:
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
    """

    similarities: tuple[str, ...] = SIMILARITIES
    best_of_top_k: tuple[int, ...] = KS
    weighted_average: tuple[int, ...] = ()
    multitask_mixture: tuple[int, ...] = ()
    tuned_similarity: str = "per_token"
    predictors: tuple[str, ...] = ()
    race: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.race, bool):
            raise UsageError(f"race must be true or false, got {self.race!r}.")
        for name in (*self.similarities, self.tuned_similarity):
            if name not in SIMILARITIES:
                raise UnknownNameError("similarity", name, SIMILARITIES)
        for name in self.predictors:
            if name not in PREDICTORS:
                raise UnknownNameError("predictor", name, PREDICTORS)
        for k in (*self.best_of_top_k, *self.weighted_average, *self.multitask_mixture):
            if not isinstance(k, int) or k < 1:
                raise UsageError(f"k must be a whole number of at least 1, got {k!r}.")


METHODS = ("sharpt", "model_tuning", "multitask_model_tuning", "lora", "prompt_design")
"""Other methods that a study can compare transfer with."""
SHARPT_ABLATIONS = ("no-source-training", "no-latent-space", "generator-only")
SHARPT_UNTRAINED = ("no-source-training", "generator-only")
"""Ablations of SharPT that a study can run beside it, and those without source training; see `softprompt.methods.sharpt.recipes.SharPTRecipe.ablated`."""


@dataclass(frozen=True, kw_only=True)
class SharPTChoice:
    """SharPT as an arm of a study.

    Attributes:
        recipe: ``paper``, ``balanced`` or ``quick``.
        encoder: instance encoder, as `softprompt.methods.sharpt.encoders.load_encoder` takes it.
        skills: K; 0 for the recipe's.
        prompt_length: P; 0 for the recipe's.
        learning_rate: on sources and targets; 0 for the recipe's. A backbone whose prompts want a smaller rate wants it here.
        source_steps: steps of source training; 0 for the recipe's.
        target_steps: steps on a target; 0 for the recipe's.
        ablations: of `SHARPT_ABLATIONS`, each run like SharPT itself (SharPT Tables 2 and 3).
    """

    recipe: str = "paper"
    encoder: str = "auto"
    skills: int = 0
    prompt_length: int = 0
    learning_rate: float = 0.0
    source_steps: int = 0
    target_steps: int = 0
    ablations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.ablations:
            if name not in SHARPT_ABLATIONS:
                raise UnknownNameError("ablation of SharPT", name, SHARPT_ABLATIONS)


@dataclass(frozen=True, kw_only=True)
class ModelTuningChoice:
    """Model tuning, plain and multi-task, as arms of a study.

    Attributes:
        recipe: a name that `softprompt.training.weights.settings.tune_recipe` knows.
        steps: on a target; 0 for the recipe's.
        source_steps: of multi-task model tuning on all sources; 0 for as many as on a target.
    """

    recipe: str = "model-tuning"
    steps: int = 0
    source_steps: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "source_steps"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} of model_tuning must not be negative, got {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True)
class LoraChoice:
    """LoRA as a method of a study.

    Attributes:
        recipe: a name that `softprompt.training.weights.settings.tune_recipe` knows.
        steps: on a target; 0 for the recipe's.
        rank: of the adapters.
    """

    recipe: str = "lora"
    steps: int = 0
    rank: int = 8

    def __post_init__(self) -> None:
        if self.steps < 0 or self.rank < 1:
            raise UsageError(
                f"lora needs steps of at least 0 and a rank of at least 1, got {self.steps} and {self.rank}."
            )


@dataclass(frozen=True, kw_only=True)
class DesignChoice:
    """Prompt design as a method of a study.

    Attributes:
        shots: training examples in the context, fewer where they do not fit.
    """

    shots: int = 16

    def __post_init__(self) -> None:
        if self.shots < 0:
            raise UsageError(f"shots must not be negative, got {self.shots}.")


@dataclass(frozen=True, kw_only=True)
class RowLimits:
    """At most so many rows of one task.

    Attributes:
        train: of its training split; 0 for the study's own limit.
        validation: likewise.
    """

    train: int = 0
    validation: int = 0

    def __post_init__(self) -> None:
        for name in ("train", "validation"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise UsageError(f"rows of a task must be whole numbers of at least 0, got {name} = {value!r}.")


@dataclass(frozen=True, kw_only=True)
class Study:
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
    scratch_seeds: int = 0
    protocol: Protocol = "paper"
    train_rows: int = 0
    target_train_rows: int = 0
    validation_rows: int = 0
    group: int = 8
    source: TrainSettings
    target: TrainSettings
    embedding: EmbeddingSettings
    strategies: StrategySettings = field(default_factory=StrategySettings)
    tuned: tuple[str, ...] = TUNED
    methods: tuple[str, ...] = ()
    sharpt: SharPTChoice = field(default_factory=SharPTChoice)
    model_tuning: ModelTuningChoice = field(default_factory=ModelTuningChoice)
    lora: LoraChoice = field(default_factory=LoraChoice)
    prompt_design: DesignChoice = field(default_factory=DesignChoice)
    mixtures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rows: Mapping[str, RowLimits] = field(default_factory=dict)
    also_on: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name, "study name")
        for what, names in (("source", self.sources), ("target", self.targets), ("seed", self.seeds)):
            if not names and (what != "source" or (not self.methods and "transfer" in self.tuned)):
                raise UsageError(f"study '{self.name}' names no {what}s: give at least one.")
            twice = sorted({str(n) for n in names if names.count(n) > 1})
            if twice:
                raise UsageError(f"study '{self.name}' names {what} {', '.join(twice)} twice: name each once.")
        if self.protocol not in get_args(Protocol):
            raise UnknownNameError("protocol", self.protocol, get_args(Protocol))
        for name in self.methods:
            if name not in METHODS:
                raise UnknownNameError("method", name, METHODS)
        if self.source.prompt_length != self.target.prompt_length:
            raise UsageError(
                f"study '{self.name}' tunes source prompts of {self.source.prompt_length} tokens and target prompts of "
                f"{self.target.prompt_length}: a prompt that is moved keeps its length; give both the same prompt_length."
            )
        both = sorted({task for source in self.sources for task in self.tasks_of(source)} & set(self.targets))
        if self.target_train_rows and both:
            raise UsageError(
                f"study '{self.name}' gives targets {self.target_train_rows} training rows, and {', '.join(both)} is a source too: "
                "a task has one set of rows; leave it out on one side, or leave out target_train_rows."
            )
        for name in ("scratch_seeds", "train_rows", "target_train_rows", "validation_rows"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must not be negative, got {getattr(self, name)}.")
        if self.group < 1:
            raise UsageError(f"group must be at least 1, got {self.group}.")
        self._check_names()

    def _check_names(self) -> None:
        """That mixtures, starts, further rows and limits name what there is."""
        for name in self.tuned:
            if name not in TUNED:
                raise UnknownNameError("start of target prompts", name, TUNED)
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

    def train_rows_of(self, task: str) -> int | None:
        """At most so many training rows of a task are used; None for all."""
        own = self.rows[task].train if task in self.rows else 0
        return own or (self.target_train_rows if task in self.targets else 0) or self.train_rows or None

    def validation_rows_of(self, task: str) -> int | None:
        """The same for validation."""
        own = self.rows[task].validation if task in self.rows else 0
        return own or self.validation_rows or None

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

    def plain(self) -> dict[str, Any]:
        """The resolved settings as JSON takes them; `study_of` reads them back."""
        return asdict(self)


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
    made["strategies"] = _section(StrategySettings, values.get("strategies", {}), f"{where}, [strategies]")
    made["sharpt"] = _section(SharPTChoice, values.get("sharpt", {}), f"{where}, [sharpt]")
    made["model_tuning"] = _section(ModelTuningChoice, values.get("model_tuning", {}), f"{where}, [model_tuning]")
    made["lora"] = _section(LoraChoice, values.get("lora", {}), f"{where}, [lora]")
    made["prompt_design"] = _section(DesignChoice, values.get("prompt_design", {}), f"{where}, [prompt_design]")
    made["rows"] = {
        name: _section(RowLimits, limits, f"{where}, [rows.{name}]") for name, limits in values.get("rows", {}).items()
    }
    made["mixtures"] = {name: _tuple(tasks) for name, tasks in values.get("mixtures", {}).items()}
    for name in ("name", "title", "backbone", "dtype", "data", "protocol"):
        if name in made and not isinstance(made[name], str):
            raise UsageError(f"{where}: {name} must be a text, got {made[name]!r}.")
    for name in ("scratch_seeds", "train_rows", "target_train_rows", "validation_rows", "group"):
        if name in made and (not isinstance(made[name], int) or isinstance(made[name], bool)):
            raise UsageError(f"{where}: {name} must be a whole number, got {made[name]!r}.")
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


def _known(values: Mapping[str, Any], known: set[str], what: str) -> None:
    for name in values:
        if name not in known:
            raise UnknownNameError(what, name, known)


def _tuple(value: Any) -> tuple[Any, ...]:
    if isinstance(value, (str, int)) or not hasattr(value, "__iter__"):
        raise UsageError(f"a list is needed, got {value!r}: write it in brackets.")
    return tuple(value)


def _folders() -> list[Path]:
    # Beside the package in a checkout; inside it where a build has put the files there.
    return [Path(__file__).parents[3] / "recipes" / "studies", Path(__file__).parent / "files"]


def ready_studies() -> dict[str, Path]:
    """The study files that come along, by name."""
    return {path.stem: path for folder in _folders() if folder.is_dir() for path in sorted(folder.glob("*.toml"))}


def load_study(path: str | Path) -> Study:
    """A study from a TOML file, or by the name of a ready one (``paper``, ``small``, ``demo``, ...).

    Raises:
        DataError: the file cannot be read or is not TOML; names the line.
        UnknownNameError: neither a file nor a ready study, or the file holds an unknown key.
        UsageError: a value that cannot be.
    """
    file = Path(path)
    if not file.is_file():
        ready = ready_studies()
        if str(path) not in ready:
            raise UnknownNameError("study", str(path), ready, "Give the path of a study file or one of these names.")
        file = ready[str(path)]
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as a study file: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{file} is not valid TOML: {error}.") from error
    return study_of(data, str(file))
