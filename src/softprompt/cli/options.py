"""Flags that several commands share, alone and in groups, and what the groups become.

A flag without a panel is shown by ``--help``; the others by ``--help-all``.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from softprompt.cli import opening
from softprompt.cli.flags import Flags, SettingFlags, among, changes_of, flag, spelled
from softprompt.fields import kinds
from softprompt.library import metric as library_metric
from softprompt.methods.spot.predictor_names import MEASURED
from softprompt.methods.spot.settings import TransferSettings
from softprompt.training.recipes import RECIPES, TUNE_RECIPES, recipe, tune_recipe
from softprompt.training.settings import TrainSettings, TuneSettings

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone
    from softprompt.tasks.task import Task
    from softprompt.training.data import TaskData

BACKBONE, ROWS, TRAINING, RUN, WORKERS = "Backbone", "Rows and wording", "Training settings", "Run", "Workers"
BACKBONES = ("builtin", "smollm2", "google/t5-base-lm-adapt", "google/t5-v1_1-base", "HuggingFaceTB/SmolLM2-135M")
"""Names that complete; any folder, GGUF file or hub id is taken."""


def _tasks() -> list[str]:
    from softprompt.tasks.catalog import task_names

    return task_names()


def _mixtures() -> list[str]:
    from softprompt.tasks.mixture import MIXTURES

    return [*MIXTURES, *_tasks()]


task_completion, mixture_completion = among(_tasks), among(_mixtures)

GivenTasks = Annotated[
    str | None,
    typer.Argument(
        metavar="TASK",
        help="What --task takes: a file, a folder, hf:NAME or a task.",
        show_default=False,
        autocompletion=task_completion,
    ),
]
GivenPlace = Annotated[
    str | None,
    typer.Argument(metavar="PLACE", help="The folder of a run, of a library or of one prompt.", show_default=False),
]
TaskName = Annotated[
    str,
    flag(
        "--task",
        "Task: a name (`softprompt tasks ls`) or a path to your own.",
        complete=task_completion,
        show_default=False,
    ),
]
TaskNames = Annotated[
    str, flag("--task", "Task, or several with commas between.", complete=task_completion, show_default=False)
]
TaskFlag = Annotated[
    str | None, flag("--task", "Task, or several with commas between.", complete=task_completion, show_default=False)
]
NewTask = Annotated[str | None, flag("--task", "The new task.", complete=task_completion)]
Sources = Annotated[
    str,
    flag(
        "--sources",
        "Source tasks, commas between, or a mixture by name.",
        complete=mixture_completion,
        show_default=False,
    ),
]
Data = Annotated[Path | None, flag("--data", "Folder with tasks/NAME/{train,validation}.*.")]
BackboneName = Annotated[
    str, flag("--backbone", "builtin, smollm2, a GGUF file, a folder, or a hub id.", complete=among(BACKBONES))
]
Dtype = Annotated[
    str,
    flag(
        "--dtype",
        "auto, float32, bfloat16, int8 or int4.",
        BACKBONE,
        complete=among(("auto", "float32", "bfloat16", "int8", "int4")),
    ),
]
Device = Annotated[str, flag("--device", "auto, cpu, cuda, cuda:1.", BACKBONE)]
Sharded = Annotated[
    bool, flag("--sharded", "The backbone's layers in shards on all processes of torchrun (FSDP2).", BACKBONE)
]
Checkpointing = Annotated[
    bool, flag("--checkpointing", "Compute layers again in the backward pass: less memory, the same bits.", BACKBONE)
]
Revision = Annotated[str | None, flag("--revision", "Commit, tag or branch of a hub backbone.", BACKBONE)]
LibraryPlace = Annotated[
    str, flag("--library", "Prompt library: a folder, a URL (s3://, hf://), or `released`.", show_default=False)
]
Set = Annotated[
    list[str] | None, flag("--set", "Any training setting, e.g. weight_decay=0; may be repeated.", metavar="NAME=VALUE")
]
Seed = Annotated[int, flag("--seed", "First seed.")]
Seeds = Annotated[str, flag("--seeds", "Seeds, with commas between.")]
Resume = Annotated[bool, flag("--resume", "Go on with what the run directory holds.")]
Split = Annotated[str, flag("--split", "train, validation or test.", complete=among(("train", "validation", "test")))]
MaxRows = Annotated[int | None, flag("--max-rows", "At most this many rows.", min=1)]
MaxNewTokens = Annotated[
    int | None,
    flag(
        "--max-new-tokens",
        "Longest answer in free text (default: 64, or a quarter of what a small decoder holds).",
        ROWS,
        min=1,
        show_default=False,
    ),
]
Workers = Annotated[int | None, flag("--workers", "Workers of processes, ray or slurm.", min=1)]
ExecutorOptions = Annotated[
    list[str] | None,
    flag(
        "--executor-option",
        "devices=cuda:0,cuda:1 (processes), gpus=1 (ray), slurm_partition=gpu (slurm), ...; may be repeated.",
        WORKERS,
        metavar="KEY=VALUE",
    ),
]
TextColumns = Annotated[str | None, flag("--text-column", "Column of the text, or several with commas between.", ROWS)]
Figure = Annotated[Path | None, flag("--figure", "Draw it here (.png or .svg; needs the report extra).")]
Figures = Annotated[bool, flag("--figures/--no-figures", "Draw figures (needs the report extra).")]
WordingForm = Annotated[
    str,
    flag(
        "--wording",
        "t5 (the papers' form), natural (natural language) or auto: natural for decoder-only backbones.",
        ROWS,
        complete=among(("auto", "t5", "natural")),
    ),
]
TrainRows = Annotated[int | None, flag("--train-rows", "At most this many training rows.", ROWS, min=1)]
Predictor = Annotated[
    str, flag("--predictor", f"Rank by {', '.join(MEASURED[:-1])} or {MEASURED[-1]}.", complete=among(MEASURED))
]
Metric = Annotated[library_metric.Metric, flag("--metric", "Similarity that ranks.")]


@dataclass(frozen=True, kw_only=True)
class DeviceFlags(Flags):
    """How a backbone is held, and where."""

    dtype: Dtype = "auto"
    device: Device = "auto"


@dataclass(frozen=True, kw_only=True)
class BackboneFlags(Flags):
    """The backbone of a command."""

    backbone: BackboneName = "builtin"
    dtype: Dtype = "auto"
    device: Device = "auto"
    revision: Revision = None

    def open(self) -> Backbone:
        """Load it, with a line of progress."""
        return opening.open_backbone(self.backbone, self.dtype, self.device, self.revision)


@dataclass(frozen=True, kw_only=True)
class PromptBackboneFlags(Flags):
    """The backbone of a command on prompts: theirs, where none is named."""

    backbone: Annotated[
        str | None,
        flag(
            "--backbone",
            "As for `train`; that of the prompts if not given.",
            show_default=False,
            complete=among(BACKBONES),
        ),
    ] = None
    dtype: Dtype = "auto"
    device: Device = "auto"
    revision: Revision = None

    def open(self, library: str | None = None, names: Sequence[str] = (), *, own: object = None) -> Backbone:
        """Load the backbone that was named, else ``own``, else that of a library's prompts."""
        name = self.backbone or (str(own) if own is not None else opening.backbone_of(library, names))
        return opening.open_backbone(name, self.dtype, self.device, self.revision, **self._more())

    def _more(self) -> dict[str, bool]:
        return {}


@dataclass(frozen=True, kw_only=True)
class ContinuedOnFlags(PromptBackboneFlags):
    """The same for a command that trains from prompts."""

    sharded: Sharded = False
    checkpointing: Checkpointing = False

    def _more(self) -> dict[str, bool]:
        return {"sharded": self.sharded, "checkpointing": self.checkpointing}


@dataclass(frozen=True, kw_only=True)
class TrainedOnFlags(BackboneFlags):
    """The backbone of a command that trains prompts."""

    sharded: Sharded = False
    checkpointing: Checkpointing = False

    def open(self) -> Backbone:
        """Load it, with a line of progress."""
        return opening.open_backbone(
            self.backbone, self.dtype, self.device, self.revision, sharded=self.sharded,
            checkpointing=self.checkpointing,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DataFlags(Flags):
    """Where rows are, and which of a user's own columns are read."""

    data: Data = None
    text_column: TextColumns = None
    label_column: Annotated[str | None, flag("--label-column", "Column of the answer.", ROWS)] = None
    kind: Annotated[
        str | None,
        flag(
            "--kind",
            "What the label column holds: classification, regression, multi_label or text.",
            ROWS,
            complete=among(("classification", "regression", "multi_label", "text")),
        ),
    ] = None
    skip_bad: Annotated[int, flag("--skip-bad", "Bad rows a split may leave out.", ROWS, min=0)] = 0

    def tasks(self, names: Sequence[str]) -> list[Task]:
        """Tasks by name, or a user's own."""
        return opening.open_tasks(
            names, self.data, skip_bad=self.skip_bad, text_column=self.text_column, label_column=self.label_column,
            kind=self.kind,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class WordedFlags(DataFlags):
    """The same, and how a row becomes a text."""

    wording: WordingForm = "auto"
    chat: Annotated[bool, flag("--chat", "Put inputs into the backbone's chat template.", ROWS)] = False
    system: Annotated[str | None, flag("--system", "System turn of --chat.", ROWS)] = None

    def worded(self, tasks: Sequence[Task], backbone: Backbone) -> list[Task]:
        """Tasks in the wording and the conversation that were asked for."""
        return opening.in_chat(opening.worded(tasks, self.wording, backbone), self.chat, self.system, backbone)


@dataclass(frozen=True, kw_only=True)
class RowLimitFlags(Flags):
    """How many rows are used."""

    train_rows: TrainRows = None
    validation_rows: Annotated[int | None, flag("--validation-rows", "The same for validation.", ROWS, min=1)] = None

    def encode(self, backbone: Backbone, tasks: Sequence[Task], settings: TrainSettings) -> list[TaskData]:
        """Tokenised rows of tasks, with a line of progress each."""
        return opening.encode(backbone, tasks, settings, self.train_rows, self.validation_rows)

    def plain(self) -> dict[str, int | None]:
        """By name."""
        return {"train_rows": self.train_rows, "validation_rows": self.validation_rows}


class RecipeFlags(SettingFlags):
    """A recipe by name, and its settings changed by flags and by ``--set``."""

    panel = TRAINING
    recipes: ClassVar[Sequence[str]] = ()
    recipe_default: ClassVar[str | None] = None
    recipe_help = "Training settings by name"

    def __init__(self, given: dict[str, Any]) -> None:
        self.recipe: str | None = given.get("recipe")
        self.items: list[str] = given.get("set_") or []
        super().__init__({name: value for name, value in given.items() if name not in ("recipe", "set_")})

    @classmethod
    def parameters(cls) -> list[inspect.Parameter]:
        """See `Flags.parameters`."""
        text = f"{cls.recipe_help}, e.g. {', '.join(list(cls.recipes)[:4])}."
        option = typer.Option("--recipe", help=text, autocompletion=among(cls.recipes))
        own = [("recipe", Annotated[str | None, option], cls.recipe_default), ("set_", Set, None)]
        first, last = (
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
            for name, kind, default in own
        )
        return [first, *super().parameters(), last]

    def words(self, *without: str) -> tuple[str, ...]:
        """See `Flags.words`."""
        recipe = {"recipe": None if self.recipe == self.recipe_default else self.recipe}
        items = [word for item in self.items for word in ("--set", item)]
        return (*spelled(recipe), *super().words(*without), *items)

    def asked(self) -> dict[str, Any]:
        """The fields that flags and ``--set`` change, with their values."""
        return changes_of(kinds(self.owner), self.items, **self.given)


class TrainingFlags(RecipeFlags):
    """Settings of a training of prompts."""

    owner = TrainSettings
    basic: ClassVar[Sequence[str]] = ("steps", "batch_size", "learning_rate", "prompt_length")
    recipes: ClassVar[Sequence[str]] = (
        "quick",
        "spot",
        "spot-30k",
        *(name for name in RECIPES if name not in ("quick", "spot", "spot-30k")),
    )
    recipe_default = "quick"

    def settings(self, base: TrainSettings | None = None, **more: Any) -> TrainSettings:
        """The recipe's, or ``base``, changed."""
        found: TrainSettings = self.changed(base or recipe(str(self.recipe)), self.items, **more)
        return found


class TuningFlags(RecipeFlags):
    """Settings of a tuning of weights."""

    owner = TuneSettings
    basic: ClassVar[Sequence[str]] = ("steps", "learning_rate")
    without: ClassVar[Sequence[str]] = ("batch_tokens",)
    recipes: ClassVar[Sequence[str]] = tuple(TUNE_RECIPES)

    def settings(self, usual: str, **more: Any) -> TuneSettings:
        """The recipe's (``usual`` where none was named), changed."""
        found: TuneSettings = self.changed(tune_recipe(self.recipe or usual), self.items, **more)
        return found


class TransferFlags(SettingFlags):
    """What a transfer tries."""

    owner = TransferSettings
    basic: ClassVar[Sequence[str]] = ("strategies", "k", "metric", "predictor", "seed")
    without: ClassVar[Sequence[str]] = ("train",)
    panel = "Transfer settings"
    defaults = True
