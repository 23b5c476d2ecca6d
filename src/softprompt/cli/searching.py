"""``softprompt embed`` and ``search``: which prompts of a library resemble a new task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprompt.cli import options as o
from softprompt.cli import places
from softprompt.cli.app import app, command
from softprompt.cli.output import Answer, both, lines, table
from softprompt.cli.progress import say, training
from softprompt.errors import DataError, UnknownNameError, UsageError
from softprompt.library.metric import DEFAULT_METRIC
from softprompt.methods.spot.predictor_names import MEASURED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from softprompt.backbones.base import Backbone
    from softprompt.library.index import Entry
    from softprompt.library.search import Match
    from softprompt.library.store import Library
    from softprompt.training.data import TaskData
    from softprompt.training.settings import TrainSettings


@command(app, "embed")
def embed(
    task: o.TaskName,
    out: Annotated[Path, typer.Option("--out", help="Where the embeddings go (.safetensors).", show_default=False)],
    data: o.Data = None,
    seeds: o.Seeds = "1,2,3",
    recipe: o.Recipe = "quick",
    set_: o.Set = None,
    batch_size: o.BatchSize = None,
    learning_rate: o.LearningRate = None,
    prompt_length: o.PromptLength = None,
    embedding_step: Annotated[int | None, typer.Option("--embedding-step", help="The step it is taken at.")] = None,
    train_rows: o.TrainRows = None,
    text_column: o.TextColumns = None,
    label_column: o.LabelColumn = None,
    kind: o.Kind = None,
    wording: o.WordingForm = "auto",
    chat: o.ChatForm = False,
    system: o.System = None,
    backbone: o.BackboneName = "builtin",
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
) -> Answer:
    """Compute a task's embeddings: its prompt at an early step."""
    from softprompt import artifacts
    from softprompt.api import task_embeddings

    if out.suffix != ".safetensors":
        raise UsageError(f"--out {out} must end in .safetensors.")
    numbers = o.numbers(seeds, "--seeds")
    settings = o.train_settings(
        recipe, set_, batch_size=batch_size, learning_rate=learning_rate, prompt_length=prompt_length,
        embedding_step=embedding_step,
    )  # fmt: skip
    tasks = o.open_tasks([task], data, text_column=text_column, label_column=label_column, kind=kind)
    model = o.open_backbone(backbone, dtype, device, revision)
    (encoded,) = o.encode(model, o.in_chat(o.worded(tasks, wording, model), chat, system, model), settings, train_rows)
    with training("embedding") as observer:
        found = task_embeddings(model, encoded, settings, seeds=numbers, observer=observer)
    artifacts.write_tensors(out, {f"seed_{seed}": t for seed, t in zip(numbers, found, strict=True)})
    facts = {
        "task": tasks[0].name,
        "file": out,
        "seeds": numbers,
        "step": settings.embedding_step,
        "shape": list(found[0].shape),
        "fingerprint": model.fingerprint,
        "data": encoded.train.fingerprint,
    }
    told = f"{len(found)} embedding(s) of {tasks[0].name} at step {settings.embedding_step}, {facts['shape']}, in {out}"
    return Answer(data=facts, show=lines(told), next=[("search", "--embedding", out, "--library", "LIBRARY")])


@command(app, "search")
def search(
    library: o.LibraryPlace,
    tasks_: places.GivenTasks = None,
    task: Annotated[str | None, typer.Option("--task", help="The new task.")] = None,
    embedding: Annotated[Path | None, typer.Option("--embedding", help="A file of `softprompt embed` instead.")] = None,
    data: o.Data = None,
    metric: o.Metric = DEFAULT_METRIC,
    top_k: Annotated[int, typer.Option("--top-k", help="How many prompts.", min=1)] = 10,
    use_prompts: Annotated[
        bool, typer.Option("--use-prompts", help="Compare prompts without an embedding by themselves.")
    ] = False,
    predictor: o.Predictor = "",
    seeds: o.Seeds = "1,2,3",
    recipe: o.Recipe = "quick",
    set_: o.Set = None,
    prompt_length: o.PromptLength = None,
    train_rows: o.TrainRows = None,
    text_column: o.TextColumns = None,
    label_column: o.LabelColumn = None,
    kind: o.Kind = None,
    wording: o.WordingForm = "auto",
    chat: o.ChatForm = False,
    system: o.System = None,
    backbone: o.BackboneOf = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
) -> Answer:
    """Rank a library's prompts for a new task."""
    from softprompt.library.search import search as search_library

    if tasks_ is not None:
        (task,) = places.tasks_asked(tasks_, task)[:1]
    if (task is None) == (embedding is None):
        raise UsageError("search takes --task or --embedding, one of the two.")
    if predictor and task is None:
        raise UsageError("--predictor needs the target's rows: give --task instead of --embedding.")
    if predictor and predictor not in MEASURED:
        raise UnknownNameError("predictor", predictor, MEASURED)
    store = o.open_library(library)
    fingerprint: str | None = None
    own: tuple[str, ...] = ()
    measured = None
    if embedding is not None:
        queries = _embeddings(embedding)
    else:
        from softprompt.api import task_embeddings
        from softprompt.methods.spot.checks import check_searchable
        from softprompt.methods.spot.run import source_entries

        settings = o.train_settings(recipe, set_, prompt_length=prompt_length)
        tasks = o.open_tasks([str(task)], data, text_column=text_column, label_column=label_column, kind=kind)
        own = (tasks[0].name,)
        model = o.open_backbone(o.backbone_of(backbone, library), dtype, device, revision)
        fingerprint = model.fingerprint
        if note := check_searchable(
            store, source_entries(store, model), own[0], settings.embedding_step, use_prompts=use_prompts
        ):
            say(note)
        (encoded,) = o.encode(
            model, o.in_chat(o.worded(tasks, wording, model), chat, system, model), settings, train_rows
        )
        with training("embedding") as observer:
            queries = task_embeddings(model, encoded, settings, seeds=o.numbers(seeds, "--seeds"), observer=observer)
        measured = _predicted(predictor, store, model, encoded, own, settings) if predictor else None
    asked: dict[str, Any] = {
        "backbone_fingerprint": fingerprint, "exclude_tasks": own, "use_prompts": use_prompts,
    }  # fmt: skip
    found = search_library(store, queries, metric=metric, top_k=len(measured or ()) or top_k, **asked)
    if measured is not None:
        ranked = sorted((m for m in found if m.name in measured), key=lambda m: -measured[m.name])[:top_k]
        found = [replace(match, rank=i) for i, match in enumerate(ranked, 1)]
    left_out = dict(store.index.problems)
    notes = [f"left out: {problem}" for problem in left_out.values()]
    if found:
        notes = [*(_by_predictor(predictor, measured) if measured else _how_sure(found, metric)), *notes]
    else:
        notes.append(f"library {store.location} holds no prompt with a task embedding for this backbone.")
    data_ = {
        "library": store.location,
        "metric": metric,
        "matches": found,
        "predictor": predictor,
        "predicted": measured,
        "problems": left_out,
    }
    shown = both(_ranking(found, predictor, measured), lines(*notes)) if found else lines(*notes)
    after: list[tuple[object, ...]] = []
    if found and task is not None:
        same = places.flags(
            data=data, text_column=text_column, label_column=label_column, kind=kind, prompt_length=prompt_length,
            wording=wording, chat=chat, system=system, train_rows=train_rows, predictor=predictor,
            metric=None if metric == DEFAULT_METRIC else metric, recipe=None if recipe == "quick" else recipe,
            backbone=backbone, dtype=dtype, device=device, revision=revision,
        )  # fmt: skip
        settings_ = [word for item in set_ or () for word in ("--set", item)]
        keep = () if library in o.RELEASED else ("--keep",)
        after = [("transfer", task, "--library", library, *keep, *same, *settings_)]
    if found:
        after.append(("library", "show", library, found[0].name))
    return Answer(data=data_, show=shown, next=after)


def _embeddings(path: Path) -> Sequence[Tensor]:
    from softprompt import artifacts

    tensors = artifacts.read_tensors(path)
    if not tensors:
        raise DataError(f"{path} holds no embedding: make one with `softprompt embed`.")
    return list(tensors.values())


def _ranking(found: Sequence[Match], predictor: str, predicted: dict[str, float] | None) -> Any:
    whose = ["prompt (task@seed)"] if named_by_task(found) else ["prompt", "task"]
    columns = ["rank", *whose, "per_token", "average", "lead", "agreement", "score", "rows"]
    rows: list[list[object]] = [
        [
            m.rank,
            *(m.name, m.task)[: len(whose)],
            f"{m.per_token:.4f}",
            f"{m.average:.4f}",
            _lead(m),
            _share(m.agreement),
            m.entry.score,
            m.entry.train_rows,
        ]
        for m in found
    ]
    if predicted is not None:
        columns.append(predictor)
        rows = [[*row, f"{predicted[match.name]:.4f}"] for row, match in zip(rows, found, strict=True)]
    return table(columns, rows)


def named_by_task(prompts: Iterable[Entry | Match]) -> bool:
    """Whether every prompt's name begins with its task, so that a table need not have both."""
    return all(prompt.name.startswith(f"{prompt.task}@") for prompt in prompts)


def _lead(match: Match) -> str:
    if match.lead is None:
        return "-"
    return f"{match.lead:.4f}" + ("" if match.lead_error is None else f" +-{match.lead_error:.4f}")


def _how_sure(found: Sequence[Match], metric: str) -> list[str]:
    """What lead and agreement mean, and whether the first place is sure."""
    first = found[0]
    told = [f"lead: {metric} similarity over the prompt ranked next, +- its standard error over the target's seeds;"]
    told.append("agreement: share of the seeds that put the prompt among these when each ranks alone.")
    if first.lead is None:
        return told
    if first.lead_error is None:
        return [*told, f"{first.name} is first by {first.lead:.4f}; how sure that is needs more than one seed."]
    sure = "beyond" if first.lead > 2.0 * first.lead_error else "not beyond"
    return [*told, f"{first.name} is first by {first.lead:.4f}, {sure} two standard errors."]


def _predicted(
    name: str, store: Library, model: Backbone, data: TaskData, own: Sequence[str], settings: TrainSettings
) -> dict[str, float]:
    """What a predictor says of every candidate; one that says the same of all is refused."""
    from softprompt.methods.spot.measured import library_predictions
    from softprompt.methods.spot.predictors import check_distinct
    from softprompt.methods.spot.run import source_entries

    names = [e.name for e in source_entries(store, model) if e.task not in own]
    say(f"{name}: {len(names)} prompt(s)")
    found = library_predictions(name, model, store, names, data, settings)
    check_distinct(name, list(found.values()))
    return found


def _by_predictor(name: str, predicted: dict[str, float]) -> list[str]:
    """How to read the order, and what chance would do with as many tries."""
    count = len(predicted)
    told = [f"ranked by {name}, higher is better; the similarities stand beside it."]
    if count > 3:
        told.append(
            f"3 of the {count} prompts drawn at random hold the best one with probability {3 / count:.2f}: "
            "`softprompt transfer --strategies best_of_top_k,random` tries both with as many runs."
        )
    return told


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"
