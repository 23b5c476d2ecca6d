"""``softprompt train``, ``eval`` and ``predict``: tune prompts, measure them, use them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprompt.cli import options as o
from softprompt.cli.app import app, command
from softprompt.cli.output import Answer, both, first_process, lines, table
from softprompt.cli.progress import counting, training
from softprompt.errors import DataError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone
    from softprompt.inference.evaluate import Evaluation
    from softprompt.prompts.init import InitSettings, Role
    from softprompt.prompts.prompter import Prompter
    from softprompt.prompts.stack import PromptStack

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
    task: o.TaskNames,
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
    names, seed_list = o.words(task, "--task"), o.numbers(seeds, "--seeds")
    settings = o.train_settings(
        recipe, set_, steps=steps, batch_size=batch_size, learning_rate=learning_rate, prompt_length=prompt_length,
        max_input_tokens=max_input_tokens,
    )  # fmt: skip
    tasks = o.open_tasks(names, data, skip_bad=skip_bad)
    folder = out or Path("runs") / "+".join(t.name for t in tasks)
    store = o.open_library(library or str(folder / "library"), must_exist=False)

    from softprompt.api import tune_tasks
    from softprompt.library.manifest import default_name

    o.refuse_taken(store, [default_name(t.name, s) for t in tasks for s in seed_list], replace=replace or resume)
    model = o.open_backbone(backbone, dtype, device, revision, sharded=sharded, checkpointing=checkpointing)
    start, by_role = _init(model, role, init, init_text, init_prompt, library)
    tasks = o.in_chat(tasks, chat, system, model)
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
        )
    if not first_process():
        return Answer(data={})  # the first one keeps and shows what all of them made
    kept = [store.add(record, replace=replace or resume) for record in records]
    rows = [_trained_row(prompt.manifest) for prompt in kept]
    missing = len(tasks) * len(seed_list) - len(kept)
    notes = [f"{missing} run(s) ended with a loss that is not finite; see {folder}"] if missing else []
    shown = table(["prompt", "task", "seed", "score", "best step", "steps"], [list(row.values())[:6] for row in rows])
    where = lines(*notes, f"run directory: {folder}", f"library: {store.location}")
    return Answer(data={"prompts": rows, "run": folder, "library": store.location}, show=both(shown, where))


def _trained_row(manifest: Any) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "task": manifest.task,
        "seed": manifest.seed,
        "score": manifest.score,
        "best_step": manifest.best_step,
        "steps": manifest.steps,
        "scores": manifest.scores,
    }


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
    from softprompt.prompts.stack import PromptStack

    if not names:
        return None
    if place is None:
        raise UsageError("--prompt names a prompt of a library: give --library as well.")
    library = o.open_library(place)
    return PromptStack.of([library.load(name, backbone).float().to(backbone.device) for name in names], keys=names)


def chats_of(place: str | None, names: Sequence[str]) -> list[Mapping[str, Any] | None]:
    """For each prompt of a library the conversation its inputs are put into; None for plain inputs."""
    if not names or place is None:
        return [None] * max(1, len(names))
    library = o.open_library(place)
    return [library.get(name).manifest.chat for name in names]


@command(app, "eval")
def evaluate(
    task: o.TaskNames,
    prompt: PromptNames = None,
    library: Annotated[str | None, typer.Option("--library", help="Where the prompts are.")] = None,
    data: o.Data = None,
    split: o.Split = "validation",
    max_rows: o.MaxRows = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="Write every answer here, as jsonl.")
    ] = None,
    max_new_tokens: o.MaxNewTokens = 64,
    skip_bad: o.SkipBad = 0,
    backbone: o.BackboneName = "builtin",
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
) -> Answer:
    """Score prompts on tasks; without --prompt the bare backbone."""
    from softprompt.inference.evaluate import EvalJob, evaluate
    from softprompt.tasks.chat import as_tuned
    from softprompt.tasks.encoded import encode_split

    tasks = o.open_tasks(o.words(task, "--task"), data, skip_bad=skip_bad)
    names = o.words(prompt, "--prompt") if prompt is not None else ()
    splits = [t.split(split, max_rows=max_rows) for t in tasks]
    model = o.open_backbone(backbone, dtype, device, revision)
    prompter = stack_of(model, library, names)
    room = None if model.max_length is None else model.max_length - (prompter.prompt_length if prompter else 0)
    encoded = [encode_split(s, model, max_input_tokens=room, max_target_tokens=None) for s in splits]
    chats = chats_of(library, names)
    pairs = [(i, j) for i in range(len(tasks)) for j in range(len(chats))]
    jobs = []
    for i, j in pairs:
        worded, rows_ij = tasks[i], encoded[i]
        if chats[j] is not None:
            worded = as_tuned(tasks[i], chats[j], model.tokenizer)
            part = worded.split(split, max_rows=max_rows)
            rows_ij = encode_split(part, model, max_input_tokens=room, max_target_tokens=None)
        jobs.append(EvalJob(run=j, task=worded, split=rows_ij))
    with counting("evaluating") as progress:
        found = evaluate(model, prompter, jobs, max_target_tokens=max_new_tokens, progress=progress)
    rows = [
        {
            "task": tasks[i].name,
            "prompt": names[j] if names else None,
            "split": split,
            "rows": len(encoded[i]),
            **evaluation.scores,
        }
        for (i, j), evaluation in zip(pairs, found, strict=True)
    ]
    if predictions is not None:
        _write_predictions(predictions, rows, jobs, found)
    metrics = list(dict.fromkeys(key for row in rows for key in row))
    shown = table(metrics, [[row.get(key) for key in metrics] for row in rows])
    provenance = {"backbone": model.name, "fingerprint": model.fingerprint, "command": o.command_line()}
    fingerprints = {t.name: s.fingerprint for t, s in zip(tasks, splits, strict=True)}
    return Answer(data={"results": rows, "data": fingerprints, **provenance}, show=shown)


def _write_predictions(
    path: Path, rows: Sequence[dict[str, Any]], jobs: Sequence[Any], found: Sequence[Evaluation]
) -> None:
    from softprompt import artifacts

    answers = [
        {"key": example.key, "prompt": row["prompt"], "prediction": prediction, "target": example.targets}
        for row, job, evaluation in zip(rows, jobs, found, strict=True)
        for example, prediction in zip(job.split.examples, evaluation.predictions, strict=True)
    ]
    text = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
    artifacts.write_bytes(path, text.encode("utf-8", "surrogatepass"))


@command(app, "predict")
def predict(
    text: o.Texts = None,
    file: o.TextFile = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="Prompt of the library.")] = None,
    library: Annotated[str | None, typer.Option("--library", help="Where the prompt is.")] = None,
    max_new_tokens: o.MaxNewTokens = 64,
    batch_size: o.TextBatch = 32,
    backbone: o.BackboneName = "builtin",
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
) -> Answer:
    """Answer texts with a prompt."""
    from softprompt.tasks.chat import wording

    texts = texts_of(text, file)
    model = o.open_backbone(backbone, dtype, device, revision)
    prompter = stack_of(model, library, (prompt,) if prompt else ())
    worded = wording(chats_of(library, (prompt,) if prompt else ())[0], model.tokenizer)
    answers = answers_to(model, prompter, [worded(given) for given in texts], max_new_tokens, batch_size)
    pairs = [{"input": given, "output": answer} for given, answer in zip(texts, answers, strict=True)]
    return Answer(data={"predictions": pairs, "prompt": prompt, "backbone": model.name}, show=lines(*answers))


def texts_of(given: Sequence[str] | None, file: Path | None) -> list[str]:
    """The texts to answer: given ones, or the lines of a file (``-``: standard input).

    Raises:
        UsageError: both or neither were given.
        DataError: the file is empty or not UTF-8.
    """
    if bool(given) == bool(file):
        raise UsageError(
            "predict takes input texts or --file, one of the two: softprompt predict 'TEXT' --prompt NAME."
        )
    if file is None:
        return list(given or ())
    try:
        content = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text ({error.reason} at byte {error.start}): convert it.") from None
    texts = content.splitlines()
    if not texts:
        raise DataError(f"{file} is empty: give one input a line.")
    return texts


def answers_to(
    backbone: Backbone, prompter: Prompter | None, texts: Sequence[str], most: int, batch_size: int
) -> list[str]:
    """Greedy answers of at most ``most`` tokens, ``batch_size`` texts a pass."""
    answers: list[str] = []
    with counting("predicting") as progress:
        for start in range(0, len(texts), batch_size):
            answers += _answers(backbone, prompter, texts[start : start + batch_size], most)
            progress(len(answers), len(texts))
    return answers


def _answers(backbone: Backbone, prompter: Prompter | None, texts: Sequence[str], most: int) -> list[str]:
    import torch

    from softprompt.batch import Rows, TokenBatch

    room = None if backbone.max_length is None else backbone.max_length - (prompter.prompt_length if prompter else 0)
    batch = TokenBatch.of(backbone.tokenize_inputs(texts, room), device=backbone.device)
    rows = Rows(run_B=torch.zeros(len(texts), dtype=torch.int64, device=backbone.device), inputs=texts)
    with torch.no_grad():
        prompts = prompter.prompts(rows) if prompter is not None else None
        return backbone.decode(backbone.generate(batch, prompts, most))
