"""``softprompt train`` and ``eval``: tune prompts, measure them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from softprompt.cli import opening, places
from softprompt.cli import options as o
from softprompt.cli.app import app, command
from softprompt.cli.flags import Flags, among, flag, spelled
from softprompt.cli.opening import texts_of as texts_of  # where callers from outside know it
from softprompt.cli.output import Answer, asked, both, first_process, lines, table
from softprompt.cli.progress import say, training
from softprompt.errors import UsageError

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone
    from softprompt.inference.evaluate import EvalJob, Evaluation
    from softprompt.library.manifest import Manifest
    from softprompt.library.store import StoredPrompt
    from softprompt.prompts.init import InitSettings, Role
    from softprompt.prompts.stack import PromptStack
    from softprompt.tasks.task import Task
    from softprompt.tasks.tuned import Kept
    from softprompt.training.data import TaskData
    from softprompt.training.settings import TrainSettings

TRAINING_ONLY = ("backbone", "sharded", "checkpointing")
INITS = ("sampled-vocabulary", "class-labels", "text", "uniform", "prompt")

PromptNames = Annotated[str | None, flag("--prompt", "Prompt of the library, or several with commas between.")]


@dataclass(frozen=True, kw_only=True)
class StartFlags(Flags):
    """Where prompts start."""

    role: Annotated[
        Literal["source", "scratch"],
        flag("--role", "source (sampled vocabulary) or scratch (class labels).", o.TRAINING),
    ] = "source"
    init: Annotated[
        str | None,
        flag(
            "--init",
            f"Start: {', '.join(INITS[:-1])} or {INITS[-1]}. By role if not given.",
            o.TRAINING,
            complete=among(INITS),
        ),
    ] = None
    init_text: Annotated[str | None, flag("--init-text", "The text for --init text.", o.TRAINING)] = None
    init_prompt: Annotated[str | None, flag("--init-prompt", "The library prompt for --init prompt.", o.TRAINING)] = (
        None
    )

    def start(self, backbone: Backbone, library: str | None) -> tuple[InitSettings | None, Role]:
        """The start that the flags ask for, None where it follows from role and task; and the role."""
        from softprompt.prompts.init import InitSettings

        kind, text, prompt = self.init, self.init_text, self.init_prompt
        chosen: Role = "scratch" if self.role == "scratch" or kind == "class-labels" else "source"
        kind = kind or ("text" if text is not None else "prompt" if prompt is not None else None)
        if (text is not None and kind != "text") or (prompt is not None and kind != "prompt"):
            raise UsageError(f"--init {kind} takes neither --init-text nor --init-prompt: leave them out.")
        if kind is None or kind == "class-labels":
            return None, chosen
        if kind == "prompt":
            if library is None or prompt is None:
                raise UsageError("--init prompt starts from a prompt of a library: give --init-prompt and --library.")
            found = opening.open_library(library).load(prompt, backbone)
            return InitSettings(kind="prompt", prompt=found, origin=prompt), chosen
        return InitSettings(kind=kind, text=text or ""), chosen  # type: ignore[arg-type]


@command(
    app, "train", "softprompt train my.csv --backbone smollm2",
    "softprompt train --task cb,copa --data DIR --seeds 1,2,3 --recipe spot --library prompts",
)  # fmt: skip
def train(
    tasks_: o.GivenTasks = None,
    *,
    task: o.TaskFlag = None,
    rows: o.WordedFlags,
    model: o.TrainedOnFlags,
    library: Annotated[str | None, flag("--library", "Where the prompts are kept; OUT/library if not given.")] = None,
    out: Annotated[Path | None, flag("--out", "Run directory; runs/TASK if not given.")] = None,
    seeds: o.Seeds = "1",
    resume: o.Resume = False,
    replace: Annotated[bool, flag("--replace", "Replace prompts of the same names.")] = False,
    training_: o.TrainingFlags,
    start: StartFlags,
    limits: o.RowLimitFlags,
    tensorboard: Annotated[
        bool, flag("--tensorboard", "Write TensorBoard scalars to OUT/tensorboard as well.", o.RUN)
    ] = False,
) -> Answer:
    """Tune soft prompts, all tasks and seeds in one batch."""
    names, seed_list = places.tasks_asked(tasks_, task), opening.numbers(seeds, "--seeds")
    settings, tasks = training_.settings(), rows.tasks(names)
    if not settings.embedding_step:
        say("no task embedding will be kept (embedding_step=0): search cannot rank these prompts later")
    folder = out or Path("runs") / "+".join(t.name for t in tasks)
    store = opening.open_library(library or str(folder / "library"), must_exist=False)

    from softprompt.api import tune_tasks
    from softprompt.library.record import default_name

    replace = replace or resume
    opening.check_out(folder, resume=resume)
    opening.refuse_taken(store, [default_name(t.name, s) for t in tasks for s in seed_list], replace=replace)
    backbone = model.open()
    init, role = start.start(backbone, library)
    encoded = limits.encode(backbone, rows.worded(tasks, backbone), settings)
    with training("training") as observer:
        records = tune_tasks(
            backbone, encoded, settings, seeds=seed_list, role=role, init=init, folder=folder, resume=resume,
            observer=_tracked(observer, folder) if tensorboard else observer, command=opening.command_line(),
            compared=True,
        )  # fmt: skip
    if not first_process():
        return Answer(data={})  # the first one keeps and shows what all of them made
    kept = [store.add(record, replace=replace) for record in records]
    shown, told = _trained(kept, encoded, settings, missing=len(tasks) * len(seed_list) - len(kept), folder=folder)
    where = lines(*told, f"run directory: {folder}", f"library: {store.location}")
    return Answer(
        data={"prompts": shown, "run": folder, "library": store.location},
        show=both(_trained_table(shown), where),
        next=_next(
            library or str(folder),
            kept,
            model.words(*TRAINING_ONLY),
            ("--task", names[0], *rows.words("wording", "chat", "system")),
        ),
    )


def _tracked(observer: Any, folder: Path) -> Any:
    """The observer, and TensorBoard's where this process is the one that writes."""
    if not first_process():
        return observer
    from softprompt.training import trackers

    return trackers.both(observer, trackers.tensorboard(folder / "tensorboard"))


def _trained(
    kept: Sequence[StoredPrompt], encoded: Sequence[TaskData], settings: TrainSettings, *, missing: int, folder: Path
) -> tuple[list[dict[str, Any]], list[str]]:
    """A row a prompt, and what a reader should know of them."""
    rows = [_trained_row(prompt.manifest) for prompt in kept]
    notes = [f"{missing} run(s) ended with a loss that is not finite; see {folder}"] if missing else []
    notes += [idle for prompt in kept if (idle := prompt.manifest.idle())]
    return rows, notes + _about(kept, encoded, settings)


def _trained_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    columns = ["name", "task", "seed", "score", "zero_step", "majority", "few_shot", "best_step", "steps"]
    if all(str(row["name"]).startswith(f"{row['task']}@") for row in rows):
        columns.remove("task")
    heads = ["prompt", *(column.replace("_", "\n") for column in columns[1:])]
    return table(heads, [[row[column] for column in columns] for row in rows])


def _next(
    place: str, kept: Sequence[StoredPrompt], model: Sequence[str], rows: Sequence[str]
) -> list[tuple[object, ...]]:
    """What a training is followed by: answers, the score with what was confused, serving."""
    if not kept:
        return []
    store = opening.open_library(place)
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


def stack_of(backbone: Backbone, place: str | None, names: Sequence[str]) -> PromptStack | None:
    """Library prompts as one stack on the backbone's device; None for no prompt.

    Raises:
        UsageError: prompts were named without a library.
    """
    if not names:
        return None
    if place is None:
        raise UsageError("--prompt names a prompt of a library: give --library as well.")
    return opening.open_library(place).stack(names, backbone)


def kept_of(place: str | None, names: Sequence[str]) -> list[Manifest | None]:
    """For each prompt of a library what it keeps of its task, wording and conversation; one None where there is no prompt."""
    if not names or place is None:
        return [None]
    library = opening.open_library(place)
    return [library.get(name).manifest for name in names]


@command(
    app,
    "eval",
    "softprompt eval runs/my --task my.csv",
    "softprompt eval --task cb --library prompts --prompt cb@1 --split test",
)
def evaluate(
    place: o.GivenPlace = None,
    *,
    task: o.TaskNames,
    rows: o.DataFlags,
    wording: o.WordingForm = "auto",
    model: o.PromptBackboneFlags,
    prompt: PromptNames = None,
    library: Annotated[str | None, flag("--library", "Where the prompts are.")] = None,
    split: o.Split = "validation",
    max_rows: o.MaxRows = None,
    predictions: Annotated[
        Path | None, flag("--predictions", "Write rows and answers here (.csv, .tsv, .jsonl or .parquet).")
    ] = None,
    confusion: Annotated[
        bool, flag("--confusion", "Also what was taken for what, and the figures of each label.")
    ] = False,
    max_new_tokens: o.MaxNewTokens = None,
) -> Answer:
    """Score prompts on tasks; without one the bare backbone."""
    from softprompt.cli import answers

    tasks = rows.tasks(opening.words(task, "--task"))
    wanted = opening.words(prompt, "--prompt") if prompt is not None else ()
    library, names = places.prompts_asked(place, library, wanted)
    answers.check(tasks, split, predictions, confusion)
    backbone = model.open(library, names)
    prompter, kept = stack_of(backbone, library, names), kept_of(library, names)
    found = scored(
        backbone, prompter, tasks, kept, wording=wording, split=split, max_rows=max_rows, max_new_tokens=max_new_tokens
    )
    results = [
        {
            "task": tasks[i].name,
            "prompt": names[j] if names else None,
            "split": split,
            "rows": len(job.split),
            **e.scores,
        }
        for i, j, job, e in found
    ]
    jobs, evaluations = [job for _, _, job, _ in found], [e for *_, e in found]
    if predictions is not None:
        answers.write(predictions, results, jobs, evaluations)
    confused = answers.confusions(results, jobs, evaluations, backbone) if confusion else []
    where, one = place or library, names[0] if names and (place is None or len(names) > 1) else None
    after = [] if where is None else _after(where, one, model.words())
    if predictions is None:
        after.insert(0, (*asked, "--predictions", "answers.jsonl"))
    provenance = {"backbone": backbone.name, "fingerprint": backbone.fingerprint, "command": opening.command_line()}
    fingerprints = {tasks[i].name: job.split.fingerprint for i, _, job, _ in found}
    told = {"confusion": confused} if confusion else {}
    shown = both(score_table(results), *answers.shown(confused))
    return Answer(data={"results": results, "data": fingerprints, **told, **provenance}, show=shown, next=after)


def _after(where: str, prompt: str | None, same: Sequence[str]) -> list[tuple[object, ...]]:
    """What a measurement of a prompt is followed by."""
    return [("predict", where, *spelled({"prompt": prompt}), "TEXT", *same), ("serve", where, *same)]


def score_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A row a task and prompt, a column a metric."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return table(columns, [[row.get(key) for key in columns] for row in rows])


Scored = tuple[int, int, "EvalJob", "Evaluation"]
"""Number of the task, number of the prompt, its rows, and what came of them."""


def scored(
    backbone: Backbone,
    prompter: Any,
    tasks: Sequence[Task],
    kept: Sequence[Kept | None],
    *,
    wording: str = "auto",
    split: str,
    max_rows: int | None,
    max_new_tokens: int | None,
) -> list[Scored]:
    """Every prompt on every task, tasks outermost, with a bar."""
    from softprompt.inference.evaluate import evaluate
    from softprompt.tasks.encoded import answer_room

    pairs = [(i, j) for i in range(len(tasks)) for j in range(len(kept))]
    worded = [worded_as_tuned(task, kept, wording, backbone) for task in tasks]
    most = answer_room(backbone, max_new_tokens)
    chosen = [worded[i][j] for i, j in pairs]
    jobs = eval_jobs(chosen, [j for _, j in pairs], split, max_rows, backbone, prompter, most)
    found = evaluate(backbone, prompter, jobs, max_target_tokens=most)
    return [(i, j, job, e) for (i, j), job, e in zip(pairs, jobs, found, strict=True)]


def worded_as_tuned(task: Task, kept: Sequence[Kept | None], form: str, backbone: Backbone) -> list[Task]:
    """A task worded as each prompt was tuned; as ``form`` says where there is no prompt or that is not ``auto``."""
    from softprompt.tasks.tuned import as_tuned

    if form != "auto":
        task = opening.worded([task], form, backbone)[0]
        return [task for _ in kept]
    own = opening.worded([task], "auto", backbone)[0]
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
