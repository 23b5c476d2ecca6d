"""``softprompt embed`` and ``search``: which prompts of a library resemble a new task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from softprompt.cli import opening, places
from softprompt.cli import options as o
from softprompt.cli.app import app, command
from softprompt.cli.flags import flag, spelled
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


@command(
    app, "embed", "softprompt embed --task my.csv --out my.safetensors",
    "softprompt embed --task cb --data DIR --out cb.safetensors --embedding-step 100",
)  # fmt: skip
def embed(
    *,
    task: o.TaskName,
    out: Annotated[Path, flag("--out", "Where the embeddings go (.safetensors).", show_default=False)],
    rows: o.WordedFlags,
    model: o.BackboneFlags,
    seeds: o.Seeds = "1,2,3",
    training_: o.TrainingFlags,
    train_rows: o.TrainRows = None,
) -> Answer:
    """Compute a task's embeddings: its prompt at an early step."""
    from softprompt import artifacts

    if out.suffix != ".safetensors":
        raise UsageError(f"--out {out} must end in .safetensors.")
    numbers, settings = opening.numbers(seeds, "--seeds"), training_.settings()
    tasks = rows.tasks([task])
    backbone = model.open()
    (encoded,) = opening.encode(backbone, rows.worded(tasks, backbone), settings, train_rows)
    found = _embedded(backbone, encoded, settings, numbers)
    artifacts.write_tensors(out, {f"seed_{seed}": t for seed, t in zip(numbers, found, strict=True)})
    facts = {
        "task": encoded.task.name,
        "file": out,
        "seeds": numbers,
        "step": settings.embedding_step,
        "shape": list(found[0].shape),
        "fingerprint": backbone.fingerprint,
        "data": encoded.train.fingerprint,
    }
    told = f"{len(found)} embedding(s) of {facts['task']} at step {settings.embedding_step}, {facts['shape']}, in {out}"
    ours = next((name for name, of in opening.RELEASED.items() if of == backbone.name), "runs/library")
    after = [("search", "--embedding", out, "--library", ours),
             ("transfer", task, "--library", ours, *rows.words(), *model.words())]  # fmt: skip
    return Answer(data=facts, show=lines(told), next=after)


def _embedded(backbone: Backbone, data: TaskData, settings: TrainSettings, seeds: Sequence[int]) -> Sequence[Tensor]:
    from softprompt.api import task_embeddings

    with training("embedding") as observer:
        return task_embeddings(backbone, data, settings, seeds=seeds, observer=observer)


@command(
    app, "search", "softprompt search my.csv --library released",
    "softprompt search --task cb --data DIR --library prompts --predictor label-loss --top-k 3",
)  # fmt: skip
def search(
    tasks_: o.GivenTasks = None,
    *,
    library: o.LibraryPlace,
    task: o.NewTask = None,
    embedding: Annotated[Path | None, flag("--embedding", "A file of `softprompt embed` instead.")] = None,
    rows: o.WordedFlags,
    model: o.PromptBackboneFlags,
    metric: o.Metric = DEFAULT_METRIC,
    top_k: Annotated[int, flag("--top-k", "How many prompts.", min=1)] = 10,
    predictor: o.Predictor = "",
    use_prompts: Annotated[
        bool, flag("--use-prompts", "Compare prompts without an embedding by themselves.", o.RUN)
    ] = False,
    seeds: o.Seeds = "1,2,3",
    training_: o.TrainingFlags,
    train_rows: o.TrainRows = None,
) -> Answer:
    """Rank a library's prompts for a new task."""
    from softprompt.methods.spot.checks import at_library_step

    if tasks_ is not None:
        (task,) = places.tasks_asked(tasks_, task)[:1]
    _check_asked(task, embedding, predictor)
    store, measured = opening.open_library(library), None
    asked: dict[str, Any] = {"use_prompts": use_prompts}
    if task is None:
        queries = _embeddings(embedding or Path())
        candidates = [entry.name for entry in store.list() if entry.width == queries[0].shape[-1]]
    else:
        settings, (opened,) = training_.settings(), rows.tasks([task])
        backbone, own = model.open(library), (opened.name,)
        settings = at_library_step(settings, store, backbone, training_.asked())
        candidates = _rankable(store, backbone, opened.name, settings, use_prompts=use_prompts)
        (encoded,) = opening.encode(backbone, rows.worded([opened], backbone), settings, train_rows)
        asked |= {"backbone_fingerprint": backbone.fingerprint, "exclude_tasks": own}
        queries = _embedded(backbone, encoded, settings, opening.numbers(seeds, "--seeds"))
        measured = _predicted(predictor, store, backbone, encoded, candidates, settings) if predictor else None
    found = _found(store, queries, measured, top_k, metric=metric, **asked)
    problems = dict(store.index.problems)
    notes = [f"left out: {problem}" for problem in problems.values()]
    data = {"library": store.location, "metric": metric, "matches": found, "predictor": predictor, "predicted": measured,
            "problems": problems}  # fmt: skip
    if not found:
        empty = f"library {store.location} holds no prompt with a task embedding for this backbone."
        return Answer(data=data, show=lines(*notes, empty))
    told = _how_sure(found, metric) if measured is None else _how_measured(predictor)
    notes = [*told, *_by_chance(len(candidates)), *_idle(store, found), *notes]
    first = found[0].name
    after: list[tuple[object, ...]] = [
        ("library", "show", library, first),
        ("predict", library, "--prompt", first, "TEXT"),
    ]
    if task is not None:
        unusual = None if metric == DEFAULT_METRIC else metric
        ranked = {"predictor": predictor, "metric": unusual, "train_rows": train_rows}
        same = (*rows.words(), *spelled(ranked), *training_.words(), *model.words())
        keep = () if library in opening.RELEASED else ("--keep",)
        after.insert(0, ("transfer", task, "--library", library, *keep, *same))
    return Answer(data=data, show=both(_ranking(found, predictor, measured), lines(*notes)), next=after)


def _rankable(
    store: Library, backbone: Backbone, task: str, settings: TrainSettings, *, use_prompts: bool
) -> list[str]:
    """The prompts of other tasks; refuse before anything is trained what cannot be ranked, and say what ranks badly."""
    from softprompt.methods.spot.checks import check_searchable
    from softprompt.methods.spot.run import source_entries

    entries = source_entries(store, backbone)
    if note := check_searchable(store, entries, task, settings.embedding_step, use_prompts=use_prompts):
        say(note)
    return [entry.name for entry in entries if entry.task != task]


def _check_asked(task: str | None, embedding: Path | None, predictor: str) -> None:
    """Raises UsageError unless one of a task and an embedding was named, and what the predictor needs."""
    if (task is None) == (embedding is None):
        raise UsageError("search takes --task or --embedding, one of the two.")
    if predictor and task is None:
        raise UsageError("--predictor needs the target's rows: give --task instead of --embedding.")
    if predictor and predictor not in MEASURED:
        raise UnknownNameError("predictor", predictor, MEASURED)


def _found(
    store: Library, queries: Sequence[Tensor], measured: dict[str, float] | None, top_k: int, **asked: Any
) -> list[Match]:
    """Matches by similarity, or in the order of what was measured."""
    from softprompt.library.search import search as search_library

    found = search_library(store, queries, top_k=len(measured or ()) or top_k, **asked)
    if measured is None:
        return found
    ranked = sorted((m for m in found if m.name in measured), key=lambda m: -measured[m.name])[:top_k]
    return [replace(match, rank=i) for i, match in enumerate(ranked, 1)]


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


def _idle(store: Library, found: Sequence[Match]) -> list[str]:
    """Of which of these prompts it is known that they learned nothing on their own task."""
    return [told for match in found if (told := store.get(match.name).manifest.idle())]


def _predicted(
    name: str, store: Library, model: Backbone, data: TaskData, names: Sequence[str], settings: TrainSettings
) -> dict[str, float]:
    """What a predictor says of every candidate; one that says the same of all is refused."""
    from softprompt.methods.spot.measured import library_predictions
    from softprompt.methods.spot.predictors import check_distinct

    say(f"{name}: {len(names)} prompt(s)")
    found = library_predictions(name, model, store, names, data, settings)
    check_distinct(name, list(found.values()))
    return found


def _how_measured(predictor: str) -> list[str]:
    return [f"ranked by {predictor}, higher is better; the similarities stand beside it."]


def _by_chance(count: int) -> list[str]:
    """What chance does with as many tries as `transfer` takes (docs/evidence.md: no ranking beat it beyond noise)."""
    from softprompt.methods.spot.settings import TransferSettings

    tries = TransferSettings.k
    if count <= tries:
        return []
    return [
        f"{tries} of the {count} prompts drawn at random hold the best one with probability {tries / count:.2f}, and no ranking beat chance",
        "beyond noise in our studies: `softprompt transfer --strategies best_of_top_k,random` tries both with as many runs.",
    ]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"
