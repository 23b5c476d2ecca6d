"""``softprompt sharpt``: one latent space of skills, and prompts generated from it (SharPT)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from softprompt.cli import options as o
from softprompt.cli import places
from softprompt.cli.app import command, group
from softprompt.cli.output import Answer, both, first_process, lines, table
from softprompt.cli.progress import counting, training
from softprompt.errors import UsageError

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone
    from softprompt.methods.sharpt.recipes import SharPTRecipe
    from softprompt.methods.sharpt.space import Space
    from softprompt.methods.sharpt.use import SkillUse
    from softprompt.tasks.task import Task
    from softprompt.training.runs import RunResult

sharpt = group("sharpt", "One latent space of skills for all tasks (SharPT).")

SpaceFolder = Annotated[Path, typer.Option("--space", help="Folder of a latent space.", show_default=False)]
Folders = Annotated[
    str, typer.Option("--prompt", help="Folders of `sharpt adapt`, commas between.", show_default=False)
]
Cache = Annotated[
    Path | None,
    typer.Option("--cache", help="Where instance encodings are kept; the user's cache folder if not given."),
]
RecipeName = Annotated[str, typer.Option("--recipe", help="quick, balanced or paper.")]


@command(sharpt, "train")
def train(
    sources: Annotated[
        str | None, typer.Option("--sources", "--mixture", help="Source tasks, commas between, or a mixture by name.")
    ] = None,
    setting: Annotated[
        str | None, typer.Option("--setting", help="The paper's: high-to-low or cross-category.")
    ] = None,
    data: o.Data = None,
    out: Annotated[Path, typer.Option("--out", help="Run directory and spaces.")] = Path("runs/sharpt"),
    resume: o.Resume = False,
    seeds: o.Seeds = "0",
    recipe: RecipeName = "quick",
    encoder: Annotated[
        str, typer.Option("--encoder", help="Instance encoder: auto, backbone, minilm, a model.")
    ] = "auto",
    ablation: Annotated[
        Literal["none", "no-source-training", "no-latent-space", "generator-only"],
        typer.Option("--ablation", help="Of Table 3, or a control."),
    ] = "none",
    skills: Annotated[int | None, typer.Option("--skills", help="K, skills in the space.", min=1)] = None,
    space_set: Annotated[
        list[str] | None,
        typer.Option(
            "--space-set",
            metavar="NAME=VALUE",
            help="Where the paper is silent, e.g. skill_init=sampled, named=true; may be repeated.",
        ),
    ] = None,
    steps: o.Steps = None,
    batch_size: o.BatchSize = None,
    learning_rate: o.LearningRate = None,
    prompt_length: o.PromptLength = None,
    set_: o.Set = None,
    train_rows: o.TrainRows = None,
    validation_rows: o.ValidationRows = None,
    cache: Cache = None,
    backbone: o.BackboneName = "builtin",
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
    sharded: o.Sharded = False,
    checkpointing: o.Checkpointing = False,
) -> Answer:
    """Learn the space and the generator on source tasks."""
    from softprompt.methods.sharpt.cache import CachedEncoder
    from softprompt.methods.sharpt.encoders import load_encoder
    from softprompt.methods.sharpt.recipes import UNTRAINED
    from softprompt.methods.sharpt.train import train_space, untrained_space

    chosen = _recipe(recipe, set_, space_set, skills, steps=steps, batch_size=batch_size, learning_rate=learning_rate,
                     prompt_length=prompt_length).ablated(ablation)  # fmt: skip
    numbers = o.numbers(seeds, "--seeds")
    tasks = _sources(sources, setting, data)
    model = o.open_backbone(backbone, dtype, device, revision, sharded=sharded, checkpointing=checkpointing)
    encodings = CachedEncoder(load_encoder(encoder, model), kept_in(cache))
    encoded = o.encode(model, tasks, chosen.source, train_rows, validation_rows)
    made: list[tuple[Space, RunResult | None, SkillUse | None]]
    with training("source training") as observer:
        if ablation in UNTRAINED:
            made = [(untrained_space(model, encodings, encoded, chosen, seed=seed), None, None) for seed in numbers]
        else:
            trained = train_space(
                model, encodings, encoded, chosen, seeds=numbers, folder=out / "run", resume=resume, observer=observer
            )
            made = [(t.space, t.result, t.use) for t in trained]
    if not first_process():
        return Answer(data={})  # the first one keeps and shows what all of them made
    rows = []
    for seed, (space, result, use) in zip(numbers, made, strict=True):
        folder = out / (f"space-{seed}" if len(numbers) > 1 else "space")
        space.save(folder, replace=True)
        rows.append({"space": folder, "seed": seed, **_outcome(result), "skills": use.sentence() if use else "-"})
    columns = ["space", "seed", "mean score", "steps", "seconds", "skills"]
    shown = table(columns, [[row[name.removeprefix("mean ")] for name in columns] for row in rows])
    counts, told = _tuned(made[0][0], model, "source", "target")
    run = out / "run" if ablation not in UNTRAINED else None
    where = [] if run is None else [f"run directory: {run}"]
    notes = _failures([result for _, result, _ in made if result is not None])
    space_ = rows[0]["space"]
    return Answer(
        data={"spaces": rows, "run": run, "parameters": counts}, show=both(shown, lines(*notes, told, *where)),
        next=[("sharpt", "adapt", "--space", space_, "--task", "TASK", *places.flags(data=data, dtype=dtype, device=device)),
              *([("sharpt", "skills", out)] if run is not None else [])],
    )  # fmt: skip


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


def _sources(sources: str | None, setting: str | None, data: Path | None) -> list[Task]:
    """The source tasks, named one by one, as a mixture or by a setting of the paper.

    Raises:
        UsageError: both or neither were given, or rates, which a plain union does not have.
    """
    from softprompt.methods.sharpt.recipes import transfer_setting

    if (sources is None) == (setting is None):
        raise UsageError("sharpt train takes --sources or --setting, one of the two.")
    mixture, tasks = o.open_mixture(sources if sources is not None else transfer_setting(str(setting)).sources, data)
    if mixture.weights:
        raise UsageError(
            f"rates were given in --sources {sources}, and SharPT mixes its sources as a plain union, where every row is as "
            "likely as any other: name the tasks alone."
        )
    return tasks


def _recipe(
    name: str, given: Sequence[str] | None, choices: Sequence[str] | None, skills: int | None, **flags: object
) -> SharPTRecipe:
    from softprompt.methods.sharpt.recipes import sharpt_recipe

    found = sharpt_recipe(name)
    found = found.having(**o.changes_of(found.choices, choices, "--space-set", skill_count=skills))
    source = o.changed_settings(found.source, given, **flags)
    return changed(found, source=source, target=found.target.having(prompt_length=source.prompt_length))


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


@command(sharpt, "adapt")
def adapt(
    space: SpaceFolder,
    task: o.TaskNames,
    data: o.Data = None,
    out: Annotated[Path, typer.Option("--out", help="Run directory and prompts.")] = Path("runs/sharpt-adapt"),
    resume: o.Resume = False,
    seeds: o.Seeds = "0",
    recipe: RecipeName = "quick",
    steps: o.Steps = None,
    batch_size: o.BatchSize = None,
    learning_rate: o.LearningRate = None,
    set_: o.Set = None,
    train_rows: o.TrainRows = None,
    validation_rows: o.ValidationRows = None,
    cache: Cache = None,
    backbone: o.BackboneOf = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
    sharded: o.Sharded = False,
    checkpointing: o.Checkpointing = False,
) -> Answer:
    """Tune the generator on target tasks, the space frozen."""
    from softprompt.methods.sharpt.recipes import sharpt_recipe
    from softprompt.methods.sharpt.space import load_space, space_encoder
    from softprompt.methods.sharpt.train import adapt as adapt_to

    loaded = load_space(space)
    settings = o.changed_settings(
        sharpt_recipe(recipe).target.having(prompt_length=loaded.prompt_length), set_,
        steps=steps, batch_size=batch_size, learning_rate=learning_rate,
    )  # fmt: skip
    numbers = o.numbers(seeds, "--seeds")
    tasks = o.open_tasks(o.words(task, "--task"), data)
    model = o.open_backbone(
        backbone or str(loaded.backbone["name"]), dtype, device, revision, sharded=sharded, checkpointing=checkpointing
    )
    encoder = space_encoder(loaded, model, kept_in(cache))
    encoded = o.encode(model, tasks, settings, train_rows, validation_rows)
    with training("adapting") as observer:
        found = adapt_to(
            model, encoder, loaded, encoded, settings, seeds=numbers, folder=out / "run", resume=resume,
            observer=observer,
        )  # fmt: skip
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
    counts, told = _tuned(loaded, model, "target")
    notes = _failures([prompt.result for prompt in found])
    folder, same = rows[0]["prompt"], places.flags(backbone=backbone, dtype=dtype, device=device)
    return Answer(
        data={"prompts": rows, "run": out / "run", "parameters": counts},
        show=both(shown, lines(*notes, told, f"run directory: {out / 'run'}")),
        next=[("sharpt", "predict", "--prompt", folder, "TEXT", *same),
              ("sharpt", "eval", "--prompt", folder, "--task", o.words(task, "--task")[0], *places.flags(data=data), *same),
              ("serve", "--sharpt", folder, *same)],
    )  # fmt: skip


@command(sharpt, "eval")
def evaluate(
    prompt: Folders,
    task: o.TaskNames,
    data: o.Data = None,
    split: o.Split = "validation",
    max_rows: o.MaxRows = None,
    max_new_tokens: o.MaxNewTokens = None,
    backbone: o.BackboneOf = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
) -> Answer:
    """Score adapted prompts on tasks."""
    from softprompt.cli.training import eval_jobs, worded_as_tuned
    from softprompt.inference.evaluate import evaluate
    from softprompt.methods.sharpt.space import load_prompter, load_space
    from softprompt.tasks.encoded import answer_room

    folders = [Path(name) for name in o.words(prompt, "--prompt")]
    tasks = o.open_tasks(o.words(task, "--task"), data)
    spaces = [load_space(folder) for folder in folders]
    model = o.open_backbone(backbone or str(spaces[0].backbone["name"]), dtype, device, revision)
    prompter = load_prompter(folders, model)
    pairs = [(i, j) for i in range(len(tasks)) for j in range(len(folders))]
    worded = [worded_as_tuned(t, spaces, "auto", model) for t in tasks]
    most = answer_room(model, max_new_tokens)
    jobs = eval_jobs([worded[i][j] for i, j in pairs], [j for _, j in pairs], split, max_rows, model, prompter, most)
    with counting("evaluating") as progress:
        found = evaluate(model, prompter, jobs, max_target_tokens=most, progress=progress)
    rows = [
        {"task": tasks[i].name, "prompt": folders[j], "rows": len(job.split), **evaluation.scores}
        for (i, j), job, evaluation in zip(pairs, jobs, found, strict=True)
    ]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    shown = table(columns, [[row.get(key) for key in columns] for row in rows])
    same = places.flags(backbone=backbone, dtype=dtype, device=device)
    return Answer(
        data={"results": rows, "fingerprint": model.fingerprint}, show=shown,
        next=[("sharpt", "predict", "--prompt", folders[0], "TEXT", *same), ("serve", "--sharpt", prompt, *same)],
    )  # fmt: skip


@command(sharpt, "predict")
def predict(
    prompt: Annotated[Path, typer.Option("--prompt", help="Folder of `sharpt adapt`.", show_default=False)],
    text: o.Texts = None,
    file: o.TextFile = None,
    out: o.AnswerFile = None,
    text_column: o.TextColumns = None,
    answer_column: o.AnswerColumn = "prediction",
    as_is: o.AsIs = False,
    max_new_tokens: o.MaxNewTokens = None,
    backbone: o.BackboneOf = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
) -> Answer:
    """Answer texts or rows with a prompt of `sharpt adapt`."""
    from softprompt.cli.predicting import answered, given_rows
    from softprompt.methods.sharpt.space import load_prompter, load_space

    given = given_rows(text, file, text_column, answer_column)
    space = load_space(prompt)
    model = o.open_backbone(backbone or str(space.backbone["name"]), dtype, device, revision)
    prompter = load_prompter([prompt], model)
    found = answered(model, prompter, given, space, as_is=as_is, max_new_tokens=max_new_tokens)
    same = places.flags(backbone=backbone, dtype=dtype, device=device)
    return changed(given.answer(found, out, {"prompt": prompt}), next=[("serve", "--sharpt", prompt, *same)])
