"""``softprompt train``, ``eval`` and ``predict``: tune prompts, measure them, use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprompt.cli import options as o
from softprompt.cli import places
from softprompt.cli.app import app, command
from softprompt.cli.output import Answer, asked, both, first_process, lines, table
from softprompt.cli.progress import counting, say, training
from softprompt.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone
    from softprompt.inference.evaluate import EvalJob
    from softprompt.library.manifest import Manifest
    from softprompt.library.store import StoredPrompt
    from softprompt.prompts.init import InitSettings, Role
    from softprompt.prompts.stack import PromptStack
    from softprompt.tasks.task import Task
    from softprompt.tasks.tuned import Kept
    from softprompt.training.data import TaskData
    from softprompt.training.settings import TrainSettings

__all__ = ["eval_jobs", "evaluate", "kept_of", "stack_of", "train", "worded_as_tuned"]

Init = Annotated[
    str | None,
    typer.Option(
        "--init", help="Start: sampled-vocabulary, class-labels, text, uniform or prompt. By role if not given."
    ),
]
PromptNames = Annotated[
    str | None, typer.Option("--prompt", help="Prompt of the library, or several with commas between.")
]


@command(app, "train")
def train(
    tasks_: places.GivenTasks = None,
    task: o.TaskFlag = None,
    data: o.Data = None,
    backbone: o.BackboneName = "builtin",
    library: Annotated[
        str | None, typer.Option("--library", help="Where the prompts are kept; OUT/library if not given.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run directory; runs/TASK if not given.")] = None,
    resume: o.Resume = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace prompts of the same names.")] = False,
    seeds: o.Seeds = "1",
    role: Annotated[
        str, typer.Option("--role", help="source (sampled vocabulary) or scratch (class labels).")
    ] = "source",
    init: Init = None,
    init_text: Annotated[str | None, typer.Option("--init-text", help="The text for --init text.")] = None,
    init_prompt: Annotated[
        str | None, typer.Option("--init-prompt", help="The library prompt for --init prompt.")
    ] = None,
    recipe: o.Recipe = "quick",
    steps: o.Steps = None,
    batch_size: o.BatchSize = None,
    learning_rate: o.LearningRate = None,
    prompt_length: o.PromptLength = None,
    max_input_tokens: o.MaxInputTokens = None,
    set_: o.Set = None,
    train_rows: o.TrainRows = None,
    validation_rows: o.ValidationRows = None,
    skip_bad: o.SkipBad = 0,
    text_column: o.TextColumns = None,
    label_column: o.LabelColumn = None,
    kind: o.Kind = None,
    wording: o.WordingForm = "auto",
    chat: o.ChatForm = False,
    system: o.System = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard scalars to OUT/tensorboard as well.")
    ] = False,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
    sharded: o.Sharded = False,
    checkpointing: o.Checkpointing = False,
) -> Answer:
    """Tune soft prompts, all tasks and seeds in one batch."""
    names, seed_list = places.tasks_asked(tasks_, task), o.numbers(seeds, "--seeds")
    settings = o.train_settings(
        recipe, set_, steps=steps, batch_size=batch_size, learning_rate=learning_rate, prompt_length=prompt_length,
        max_input_tokens=max_input_tokens,
    )  # fmt: skip
    tasks = o.open_tasks(names, data, skip_bad=skip_bad, text_column=text_column, label_column=label_column, kind=kind)
    folder = out or Path("runs") / "+".join(t.name for t in tasks)
    store = o.open_library(library or str(folder / "library"), must_exist=False)
    if not settings.embedding_step:
        say("no task embedding will be kept (embedding_step=0): search cannot rank these prompts later")

    from softprompt.api import tune_tasks
    from softprompt.library.record import default_name

    o.refuse_taken(store, [default_name(t.name, s) for t in tasks for s in seed_list], replace=replace or resume)
    model = o.open_backbone(backbone, dtype, device, revision, sharded=sharded, checkpointing=checkpointing)
    start, by_role = _init(model, role, init, init_text, init_prompt, library)
    tasks = o.in_chat(o.worded(tasks, wording, model), chat, system, model)
    encoded = o.encode(model, tasks, settings, train_rows, validation_rows)
    with training("training") as observer:
        if tensorboard and first_process():
            from softprompt.training import trackers

            observer = trackers.both(observer, trackers.tensorboard(folder / "tensorboard"))
        records = tune_tasks(
            model,
            encoded,
            settings,
            seeds=seed_list,
            role=by_role,
            init=start,
            folder=folder,
            resume=resume,
            observer=observer,
            command=o.command_line(),
            compared=True,
        )
    if not first_process():
        return Answer(data={})  # the first one keeps and shows what all of them made
    kept = [store.add(record, replace=replace or resume) for record in records]
    rows = [_trained_row(prompt.manifest) for prompt in kept]
    missing = len(tasks) * len(seed_list) - len(kept)
    notes = [f"{missing} run(s) ended with a loss that is not finite; see {folder}"] if missing else []
    notes += [_idle(row) for row in rows if _idle(row)]
    notes += _about(kept, encoded, settings)
    columns = ["name", "task", "seed", "score", "zero_step", "majority", "few_shot", "best_step", "steps"]
    shown = table(["prompt", *(c.replace("_", " ") for c in columns[1:])], [[row[c] for c in columns] for row in rows])
    where = lines(*notes, f"run directory: {folder}", f"library: {store.location}")
    after = _next(
        library if library is not None else str(folder), kept, places.flags(dtype=dtype, device=device, revision=revision),
        ("--task", names[0], *places.flags(data=data, text_column=text_column, label_column=label_column, kind=kind,
                                           skip_bad=skip_bad or None)),
    )  # fmt: skip
    return Answer(data={"prompts": rows, "run": folder, "library": store.location}, show=both(shown, where), next=after)


def _next(
    place: str, kept: Sequence[StoredPrompt], model: Sequence[str], rows: Sequence[str]
) -> list[tuple[object, ...]]:
    """What a training is followed by: answers, the score with what was confused, serving."""
    if not kept:
        return []
    store = o.open_library(place)
    if len({entry.backbone_name for entry in store.list()}) > 1:
        model = ("--backbone", kept[0].manifest.backbone_name, *model)
    prompt = ("--prompt", kept[0].name) if len(store.names()) > 1 else ()
    wording = kept[0].manifest.wording or {}
    columns = wording.get("columns")
    several = isinstance(columns, list | tuple) and len(columns) > 1
    return [
        ("predict", place, *prompt, *(("--file", "ROWS.csv") if several else ("TEXT",)), *model),
        ("eval", place, *prompt, *rows, *(("--confusion",) if wording.get("labels") else ()), *model),
        ("serve", place, *model),
    ]


def _about(kept: Sequence[StoredPrompt], encoded: Sequence[TaskData], settings: TrainSettings) -> list[str]:
    """On how many rows the scores are, and which step the embedding of a short run is of."""
    told = []
    for data in encoded:
        total = len(data.validation)
        count = min(total, settings.eval_rows or total)
        beside = "" if count == total else f"; zero step and few-shot on {count} of them"
        told.append(f"score and majority of {data.task.name} are on all {total} validation rows{beside}")
    steps = {one.manifest.embedding_step for one in kept if one.manifest.has_task_embedding}
    if early := sorted(step for step in steps if step is not None and step < settings.embedding_step):
        told.append(
            f"the task embedding is the prompt at step {early[0]}, the last one; the recipe takes it at "
            f"{settings.embedding_step}: it compares well only with embeddings of step {early[0]}"
        )
    return told


def _trained_row(manifest: Any) -> dict[str, Any]:
    beside = manifest.recipe.get("beside") or {}
    return {
        "name": manifest.name,
        "task": manifest.task,
        "seed": manifest.seed,
        "score": manifest.score,
        **{name: beside.get(name) for name in ("zero_step", "majority", "few_shot", "shots")},
        "beside_rows": beside.get("rows"),
        "best_step": manifest.best_step,
        "steps": manifest.steps,
        "scores": manifest.scores,
    }


def _idle(row: Mapping[str, Any]) -> str:
    """A line where a prompt is no better than what needs no tuning; empty otherwise."""
    score = row["score"]
    for name, what in (("majority", "the most frequent label"), ("zero_step", "its start")):
        if score is not None and row[name] is not None and score <= row[name]:
            return (
                f"{row['name']}: {score:.1f} is no better than {what} ({row[name]:.1f}): it learned nothing that shows."
            )
    return ""


def _init(
    backbone: Backbone, role: str, kind: str | None, text: str | None, prompt: str | None, library: str | None
) -> tuple[InitSettings | None, Role]:
    """The start that the flags ask for, None where it follows from role and task; and the role."""
    from softprompt.prompts.init import InitSettings

    if role not in ("source", "scratch"):
        raise UnknownNameError("role", role, ("source", "scratch"))
    chosen: Role = "scratch" if role == "scratch" or kind == "class-labels" else "source"
    kind = kind or ("text" if text is not None else "prompt" if prompt is not None else None)
    if (text is not None and kind != "text") or (prompt is not None and kind != "prompt"):
        raise UsageError(f"--init {kind} takes neither --init-text nor --init-prompt: leave them out.")
    if kind is None or kind == "class-labels":
        return None, chosen
    if kind == "prompt":
        if library is None or prompt is None:
            raise UsageError("--init prompt starts from a prompt of a library: give --init-prompt and --library.")
        return InitSettings(kind="prompt", prompt=o.open_library(library).load(prompt, backbone), origin=prompt), chosen
    return InitSettings(kind=kind, text=text or ""), chosen  # type: ignore[arg-type]


def stack_of(backbone: Backbone, place: str | None, names: Sequence[str]) -> PromptStack | None:
    """Library prompts as one stack on the backbone's device; None for no prompt.

    Raises:
        UsageError: prompts were named without a library.
    """
    if not names:
        return None
    if place is None:
        raise UsageError("--prompt names a prompt of a library: give --library as well.")
    return o.open_library(place).stack(names, backbone)


def kept_of(place: str | None, names: Sequence[str]) -> list[Manifest | None]:
    """For each prompt of a library what it keeps of its task, wording and conversation; one None where there is no prompt."""
    if not names or place is None:
        return [None]
    library = o.open_library(place)
    return [library.get(name).manifest for name in names]


@command(app, "eval")
def evaluate(
    task: o.TaskNames,
    place: places.GivenPlace = None,
    prompt: PromptNames = None,
    library: Annotated[str | None, typer.Option("--library", help="Where the prompts are.")] = None,
    data: o.Data = None,
    split: o.Split = "validation",
    max_rows: o.MaxRows = None,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", help="Write rows and answers here (.csv, .tsv, .jsonl or .parquet)."),
    ] = None,
    confusion: Annotated[
        bool, typer.Option("--confusion", help="Also what was taken for what, and the figures of each label.")
    ] = False,
    max_new_tokens: o.MaxNewTokens = None,
    text_column: o.TextColumns = None,
    label_column: o.LabelColumn = None,
    kind: o.Kind = None,
    wording: o.WordingForm = "auto",
    skip_bad: o.SkipBad = 0,
    backbone: o.BackboneOf = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
) -> Answer:
    """Score prompts on tasks; without one the bare backbone."""
    from softprompt.cli import answers
    from softprompt.inference.evaluate import evaluate
    from softprompt.tasks.encoded import answer_room

    tasks = o.open_tasks(
        o.words(task, "--task"), data, skip_bad=skip_bad, text_column=text_column, label_column=label_column, kind=kind
    )
    wanted = o.words(prompt, "--prompt") if prompt is not None else ()
    library, names = places.prompts_asked(place, library, wanted)
    answers.check(tasks, split, predictions, confusion)
    model = o.open_backbone(o.backbone_of(backbone, library, names), dtype, device, revision)
    prompter = stack_of(model, library, names)
    kept = kept_of(library, names)
    pairs = [(i, j) for i in range(len(tasks)) for j in range(len(kept))]
    worded = [worded_as_tuned(t, kept, wording, model) for t in tasks]
    most = answer_room(model, max_new_tokens)
    jobs = eval_jobs([worded[i][j] for i, j in pairs], [j for _, j in pairs], split, max_rows, model, prompter, most)
    with counting("evaluating") as progress:
        found = evaluate(model, prompter, jobs, max_target_tokens=most, progress=progress)
    rows = [
        {
            "task": tasks[i].name,
            "prompt": names[j] if names else None,
            "split": split,
            "rows": len(job.split),
            **evaluation.scores,
        }
        for (i, j), job, evaluation in zip(pairs, jobs, found, strict=True)
    ]
    if predictions is not None:
        answers.write(predictions, rows, jobs, found)
    confused = answers.confusions(rows, jobs, found, model) if confusion else []
    metrics = list(dict.fromkeys(key for row in rows for key in row))
    shown = both(table(metrics, [[row.get(key) for key in metrics] for row in rows]), *answers.shown(confused))
    where, named = place or library, names[0] if names and (place is None or len(names) > 1) else None
    after = [] if where is None else [
        ("predict", where, *places.flags(prompt=named), "TEXT", *places.flags(backbone=backbone, dtype=dtype, device=device)),
        ("serve", where, *places.flags(backbone=backbone, dtype=dtype, device=device)),
    ]  # fmt: skip
    if predictions is None:
        after.insert(0, (*asked, "--predictions", "answers.jsonl"))
    provenance = {"backbone": model.name, "fingerprint": model.fingerprint, "command": o.command_line()}
    fingerprints = {tasks[i].name: job.split.fingerprint for (i, _), job in zip(pairs, jobs, strict=True)}
    told = {"confusion": confused} if confusion else {}
    return Answer(data={"results": rows, "data": fingerprints, **told, **provenance}, show=shown, next=after)


def worded_as_tuned(task: Task, kept: Sequence[Kept | None], form: str, backbone: Backbone) -> list[Task]:
    """A task worded as each prompt was tuned; as ``form`` says where there is no prompt or that is not ``auto``."""
    from softprompt.tasks.tuned import as_tuned

    if form != "auto":
        task = o.worded([task], form, backbone)[0]
        return [task for _ in kept]
    own = o.worded([task], "auto", backbone)[0]
    return [own if one is None else as_tuned(task, one, backbone.tokenizer) for one in kept]


def eval_jobs(
    tasks: Sequence[Task],
    runs: Sequence[int],
    split: str,
    most: int | None,
    backbone: Backbone,
    prompter: Any,
    answer_tokens: int,
) -> list[EvalJob]:
    """One job a task and run; rows that are worded alike are tokenised once. Says how many texts were cut."""
    from softprompt.inference.evaluate import EvalJob
    from softprompt.tasks.encoded import encode_split, input_room
    from softprompt.tasks.splits import EncodedSplit

    made: dict[tuple[str, str], EncodedSplit] = {}
    jobs = []
    for task, run in zip(tasks, runs, strict=True):
        rows = task.split(split, max_rows=most)
        key = (task.name, rows.fingerprint)
        if key not in made:
            room = input_room(backbone, prompter, task.labels, answer_tokens)
            made[key] = encode_split(rows, backbone, max_input_tokens=room, max_target_tokens=None)
            if made[key].cut_inputs:
                say(f"task {task.name}: {made[key].cut_inputs} of {len(rows)} inputs cut to the {room} tokens that fit")
        jobs.append(EvalJob(run=run, task=task, split=made[key]))
    return jobs
