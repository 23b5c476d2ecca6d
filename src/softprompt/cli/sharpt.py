"""``softprompt sharpt``: one latent space of skills, and prompts generated from it (SharPT)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from softprompt.cli import opening
from softprompt.cli import options as o
from softprompt.cli.app import command, group
from softprompt.cli.flags import Flags, among, changes_of, flag, spelled
from softprompt.cli.output import AT_HAND, Answer, both, first_process, lines, table
from softprompt.cli.predicting import InputFlags, Texts
from softprompt.cli.progress import training
from softprompt.errors import UsageError
from softprompt.training.settings import TrainSettings

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone
    from softprompt.methods.sharpt.cache import CachedEncoder
    from softprompt.methods.sharpt.recipes import SharPTRecipe
    from softprompt.methods.sharpt.space import Space
    from softprompt.methods.sharpt.use import SkillUse
    from softprompt.tasks.task import Task
    from softprompt.training.data import TaskData
    from softprompt.training.runs import RunResult

sharpt = group("sharpt", "One latent space of skills for all tasks (SharPT).")

UNTRAINED = ("no-source-training", "generator-only")
SpaceFolder = Annotated[Path, flag("--space", "Folder of a latent space.", show_default=False)]
Folders = Annotated[str, flag("--prompt", "Folders of `sharpt adapt`, commas between.", show_default=False)]
Cache = Annotated[
    Path | None, flag("--cache", "Where instance encodings are kept; the user's cache folder if not given.", o.RUN)
]


class SharPTFlags(o.RecipeFlags):
    """Settings of a training of SharPT; the recipe names both stages."""

    owner = TrainSettings
    basic: ClassVar[Sequence[str]] = ("steps", "batch_size", "learning_rate", "prompt_length")
    recipes: ClassVar[Sequence[str]] = ("quick", "balanced", "paper")
    recipe_default = "quick"


class AdaptFlags(SharPTFlags):
    """The same on a target, where the space says how long a prompt is."""

    basic: ClassVar[Sequence[str]] = ("steps", "batch_size", "learning_rate")
    without: ClassVar[Sequence[str]] = ("prompt_length",)


@dataclass(frozen=True, kw_only=True)
class SpaceFlags(Flags):
    """How a latent space is learned."""

    encoder: Annotated[
        str,
        flag(
            "--encoder",
            "Instance encoder: auto, backbone, minilm, a model.",
            complete=among(("auto", "backbone", "minilm")),
        ),
    ] = "auto"
    skills: Annotated[int | None, flag("--skills", "K, skills in the space.", min=1)] = None
    ablation: Annotated[
        Literal["none", "no-source-training", "no-latent-space", "generator-only"],
        flag("--ablation", "Of Table 3, or a control.", "Latent space"),
    ] = "none"
    space_set: Annotated[
        list[str] | None,
        flag(
            "--space-set",
            "Where the paper is silent, e.g. skill_init=sampled, named=true; may be repeated.",
            "Latent space",
            metavar="NAME=VALUE",
        ),
    ] = None

    def recipe(self, flags: SharPTFlags) -> SharPTRecipe:
        """The recipe that was named, changed."""
        from softprompt.methods.sharpt.recipes import choice_kinds, sharpt_recipe

        found = sharpt_recipe(str(flags.recipe))
        choices = changes_of(choice_kinds(), self.space_set or (), "--space-set", skill_count=self.skills)
        found = found.having(**choices)
        source = flags.changed(found.source, flags.items)
        target = found.target.having(prompt_length=source.prompt_length)
        return changed(found, source=source, target=target).ablated(self.ablation)


@command(
    sharpt, "train", "softprompt sharpt train --sources sst2,mnli,qqp --data DIR --out runs/space",
    "softprompt sharpt train --sources sharpt_sources --data DIR --recipe paper --seeds 0,1,2",
)  # fmt: skip
def train(
    *,
    sources: Annotated[
        str,
        typer.Option(
            "--sources",
            "--mixture",
            help="Source tasks, commas between, or a mixture by name: sharpt_sources is the paper's.",
            autocompletion=o.mixture_completion,
            show_default=False,
        ),
    ],
    data: o.Data = None,
    model: o.TrainedOnFlags,
    space: SpaceFlags,
    out: Annotated[Path, flag("--out", "Run directory and spaces.")] = Path("runs/sharpt"),
    resume: o.Resume = False,
    seeds: o.Seeds = "0",
    training_: SharPTFlags,
    limits: o.RowLimitFlags,
    cache: Cache = None,
) -> Answer:
    """Learn the space and the generator on source tasks."""
    from softprompt.methods.sharpt.cache import CachedEncoder
    from softprompt.methods.sharpt.encoders import load_encoder

    chosen, numbers = space.recipe(training_), opening.numbers(seeds, "--seeds")
    tasks = _sources(sources, data)
    opening.check_out(out, resume=resume)
    backbone = model.open()
    encoder = CachedEncoder(load_encoder(space.encoder, backbone), kept_in(cache))
    encoded = limits.encode(backbone, tasks, chosen.source)
    run = None if space.ablation in UNTRAINED else out / "run"
    made = _spaces(backbone, encoder, encoded, chosen, numbers, (run, resume))
    if not first_process():
        return Answer(data={})  # the first one keeps and shows what all of them made
    rows = []
    for seed, (one, result, use) in zip(numbers, made, strict=True):
        folder = out / (f"space-{seed}" if len(numbers) > 1 else "space")
        one.save(folder, replace=True)
        rows.append({"space": folder, "seed": seed, **_outcome(result), "skills": use.sentence() if use else "-"})
    columns = ["space", "seed", "mean score", "steps", "seconds", "skills"]
    shown = table(columns, [[row[name.removeprefix("mean ")] for name in columns] for row in rows])
    counts, told = _tuned(made[0][0], backbone, "source", "target")
    where = [] if run is None else [f"run directory: {run}"]
    notes = _failures([result for _, result, _ in made if result is not None])
    same = (*spelled({"data": data}), *model.words())
    after = [("sharpt", "adapt", "--space", rows[0]["space"], "--task", AT_HAND, *same)]
    return Answer(
        data={"spaces": rows, "run": run, "parameters": counts}, show=both(shown, lines(*notes, told, *where)),
        next=[*after, ("sharpt", "skills", out) if run is not None else ("sharpt", "train", "--help")],
    )  # fmt: skip


def _spaces(
    backbone: Backbone, encoder: CachedEncoder, sources: Sequence[TaskData], recipe: SharPTRecipe, seeds: Sequence[int],
    run: tuple[Path | None, bool],
) -> list[tuple[Space, RunResult | None, SkillUse | None]]:  # fmt: skip
    """A space a seed; ``run``: its directory (None: nothing of the sources is trained) and whether to resume."""
    from softprompt.methods.sharpt.train import train_space, untrained_space

    folder, resume = run
    if folder is None:
        return [(untrained_space(backbone, encoder, sources, recipe, seed=seed), None, None) for seed in seeds]
    with training("source training") as observer:
        trained = train_space(
            backbone, encoder, sources, recipe, seeds=seeds, folder=folder, resume=resume, observer=observer
        )
    return [(one.space, one.result, one.use) for one in trained]


def _outcome(result: RunResult | None) -> dict[str, Any]:
    """Score and cost of a training; of none where nothing was trained."""
    if result is None:
        return {"score": None, "steps": 0, "seconds": 0.0}
    return {"score": result.scores.get("score"), "steps": result.steps, "seconds": round(result.seconds, 2)}


def _failures(results: Sequence[RunResult]) -> list[str]:
    """What went wrong, a line a run."""
    return [f"{result.name}: {result.note}" for result in results if result.status == "non_finite"]


def kept_in(cache: Path | None) -> Path:
    """Where instance encodings are kept: as asked for, or in the user's cache folder."""
    from softprompt.artifacts import cache_folder

    return cache or cache_folder("instances")


def _sources(sources: str, data: Path | None) -> list[Task]:
    """The source tasks, named one by one or as a mixture.

    Raises:
        UsageError: rates were given, which a plain union does not have.
    """
    mixture, tasks = opening.open_mixture(sources, data)
    if mixture.weights:
        raise UsageError(
            f"rates were given in --sources {sources}, and SharPT mixes its sources as a plain union, where every row is as "
            "likely as any other: name the tasks alone."
        )
    return tasks


def _tuned(space: Space, model: Backbone, *stages: Literal["source", "target"]) -> tuple[dict[str, Any], str]:
    """How many parameters each stage tunes: as data, and as one line beside what the paper says."""
    from softprompt.methods.sharpt.train import tuned_share

    share = tuned_share(space, model)
    words = {"source": "on the sources", "target": "on a target"}
    parts = [
        f"{share[stage]:,.0f} {words[stage]} ({share[f'{stage}_percent']:.2f} % of {model.name})" for stage in stages
    ]
    return {stage: {"tuned": int(share[stage]), "percent": share[f"{stage}_percent"]} for stage in stages}, (
        f"tuned parameters: {', '.join(parts)}; the paper says about 0.1 to 0.3 %"
    )


@command(
    sharpt, "adapt", "softprompt sharpt adapt --space runs/space/space --task cb --data DIR",
    "softprompt sharpt adapt --space runs/space/space --task cb,copa --data DIR --seeds 0,1,2 --recipe paper",
)  # fmt: skip
def adapt(
    *,
    space: SpaceFolder,
    task: o.TaskNames,
    data: o.Data = None,
    model: o.ContinuedOnFlags,
    out: Annotated[Path, flag("--out", "Run directory and prompts.")] = Path("runs/sharpt-adapt"),
    resume: o.Resume = False,
    seeds: o.Seeds = "0",
    training_: AdaptFlags,
    limits: o.RowLimitFlags,
    cache: Cache = None,
) -> Answer:
    """Tune the generator on target tasks, the space frozen."""
    from softprompt.methods.method import Target, Work
    from softprompt.methods.sharpt.method import SharPT
    from softprompt.methods.sharpt.recipes import sharpt_recipe
    from softprompt.methods.sharpt.space import load_space, space_encoder

    loaded = load_space(space)
    usual = sharpt_recipe(str(training_.recipe)).target.having(prompt_length=loaded.prompt_length)
    settings, numbers = training_.changed(usual, training_.items), opening.numbers(seeds, "--seeds")
    tasks = opening.open_tasks(opening.words(task, "--task"), data)
    opening.check_out(out, resume=resume)
    backbone = model.open(own=loaded.backbone["name"])
    method = SharPT(loaded, space_encoder(loaded, backbone, kept_in(cache)), settings)
    targets = [Target(data=data) for data in limits.encode(backbone, tasks, settings)]
    with training("adapting") as observer:
        work = Work(backbone=backbone, folder=out / "run", resume=resume, observe=lambda *_: observer)
        found = method.adapt(work, targets, numbers)
    if not first_process():
        return Answer(data={})
    rows = []
    for prompt in found:
        folder = out / prompt.space.name
        prompt.space.save(folder, replace=True)
        scores = {"scores": prompt.result.scores, **_outcome(prompt.result)}
        rows.append({"prompt": folder, "task": prompt.task, "seed": prompt.seed, **scores})
    columns = ["prompt", "task", "seed", "score", "steps", "seconds"]
    shown = table(columns, [[row[name] for name in columns] for row in rows])
    counts, told = _tuned(loaded, backbone, "target")
    notes = _failures([prompt.result for prompt in found])
    return Answer(
        data={"prompts": rows, "run": out / "run", "parameters": counts},
        show=both(shown, lines(*notes, told, f"run directory: {out / 'run'}")),
        next=_after(rows[0]["prompt"], tasks[0].name, data, model.words()),
    )


def _after(folder: object, task: str, data: Path | None, same: Sequence[str]) -> list[tuple[object, ...]]:
    """What an adaptation is followed by."""
    scored = ("--task", task, *spelled({"data": data}))
    return [
        ("sharpt", "predict", "--prompt", folder, "TEXT", *same),
        ("sharpt", "eval", "--prompt", folder, *scored, *same),
        ("serve", "--sharpt", folder, *same),
    ]


@command(
    sharpt, "eval", "softprompt sharpt eval --prompt runs/sharpt-adapt/cb-seed0 --task cb --data DIR",
    "softprompt sharpt eval --prompt runs/sharpt-adapt/cb-seed0 --task cb --data DIR --split test --max-rows 100",
)  # fmt: skip
def evaluate(
    *,
    prompt: Folders,
    task: o.TaskNames,
    data: o.Data = None,
    model: o.PromptBackboneFlags,
    split: o.Split = "validation",
    max_rows: o.MaxRows = None,
    max_new_tokens: o.MaxNewTokens = None,
) -> Answer:
    """Score adapted prompts on tasks."""
    from softprompt.cli.training import score_table, scored
    from softprompt.methods.sharpt.space import load_prompter, load_space

    folders = [Path(name) for name in opening.words(prompt, "--prompt")]
    tasks = opening.open_tasks(opening.words(task, "--task"), data)
    spaces = [load_space(folder) for folder in folders]
    backbone = model.open(own=spaces[0].backbone["name"])
    found = scored(
        backbone, load_prompter(folders, backbone), tasks, spaces, split=split, max_rows=max_rows,
        max_new_tokens=max_new_tokens,
    )  # fmt: skip
    rows = [{"task": tasks[i].name, "prompt": folders[j], "rows": len(job.split), **e.scores} for i, j, job, e in found]
    same = model.words()
    after = [("sharpt", "predict", "--prompt", folders[0], "TEXT", *same), ("serve", "--sharpt", prompt, *same)]
    return Answer(data={"results": rows, "fingerprint": backbone.fingerprint}, show=score_table(rows), next=after)


@command(
    sharpt, "predict", "softprompt sharpt predict 'Never again.' --prompt runs/sharpt-adapt/cb-seed0",
    "softprompt sharpt predict --file new.csv --out answers.csv --prompt runs/sharpt-adapt/cb-seed0",
)  # fmt: skip
def predict(
    text: Texts = None,
    *,
    prompt: Annotated[Path, flag("--prompt", "Folder of `sharpt adapt`.", show_default=False)],
    inputs: InputFlags,
    model: o.PromptBackboneFlags,
) -> Answer:
    """Answer texts or rows with a prompt of `sharpt adapt`."""
    from softprompt.cli.predicting import answered
    from softprompt.methods.sharpt.space import load_prompter, load_space

    given, space = inputs.rows(text), load_space(prompt)
    backbone = model.open(own=space.backbone["name"])
    found = answered(backbone, load_prompter([prompt], backbone), given, space, inputs)
    return changed(
        given.answer(found, inputs.out, {"prompt": prompt}),
        next=[
            ("sharpt", "eval", "--prompt", prompt, "--task", space.task, *model.words()),
            ("serve", "--sharpt", prompt, *model.words()),
        ],
    )
