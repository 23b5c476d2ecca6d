"""Build the library that ships: source prompts of the built-in tasks, and of real tasks whose licences allow it.

    python recipes/build_released_library.py --work runs/released                       # built-in sources
    python recipes/build_released_library.py --work runs/released --data ../shared/data # and real ones
    python recipes/build_released_library.py --work runs/released --data ../shared/data --backbone smollm2 \\
        --tasks gen_sentiment_film,gen_topic_review,snli,qnli --seeds 1 --steps 100 --embedding-step 30  # that of smollm2

Prompts are trained every task with every seed, some tasks at a time, and only those clearly above chance are added. Stopping is harmless:
the same command goes on where it stopped, and prompts that are already in the library, made from the same rows with the
same settings on the same backbone, are left alone. A library's task embeddings are compared with a target's, which is taken at
the same step, so all of them are of one step.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from softprompt.api import tune_tasks
from softprompt.backbones.base import Backbone
from softprompt.backbones.load import load_backbone
from softprompt.errors import SoftpromptError, UsageError
from softprompt.library.manifest import Manifest
from softprompt.library.record import PromptRecord, default_name
from softprompt.library.released import FOLDER, FOLDERS
from softprompt.library.store import Library
from softprompt.tasks.catalog import load_task
from softprompt.tasks.generated import DEMO_SOURCES
from softprompt.tasks.generated.tasks import GENERATED
from softprompt.tasks.task import Task
from softprompt.tasks.tuned import for_backbone
from softprompt.training.data import TaskData, task_data
from softprompt.training.recipes import recipe
from softprompt.training.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Source:
    """A real task whose data may be built upon.

    Attributes:
        task: its name in the catalog.
        licence: SPDX name of the prompt's licence: the data's, or a later version of it that the data's allows.
        credit: whose data it is.
    """

    task: str
    licence: str
    credit: str


#: Share-alike data gives share-alike prompts. MultiNLI mixes the OANC's free texts with CC BY 3.0 and CC BY-SA 3.0 ones.
REAL_SOURCES: tuple[Source, ...] = (
    Source(task="mnli", licence="CC-BY-SA-4.0", credit="MultiNLI, Williams et al. 2018"),
    Source(task="snli", licence="CC-BY-SA-4.0", credit="SNLI, Bowman et al. 2015"),
    Source(task="qnli", licence="CC-BY-SA-4.0", credit="QNLI, Wang et al. 2018, from SQuAD, Rajpurkar et al. 2016"),
    Source(task="boolq", licence="CC-BY-SA-4.0", credit="BoolQ, Clark et al. 2019"),
    Source(task="squad", licence="CC-BY-SA-4.0", credit="SQuAD 1.1, Rajpurkar et al. 2016"),
    Source(task="drop", licence="CC-BY-SA-4.0", credit="DROP, Dua et al. 2019"),
    Source(task="winogrande", licence="CC-BY-4.0", credit="WinoGrande, Sakaguchi et al. 2019"),
    Source(task="cosmos_qa", licence="CC-BY-4.0", credit="Cosmos QA, Huang et al. 2019"),
    Source(task="hellaswag", licence="MIT", credit="HellaSwag, Zellers et al. 2019"),
)
#: Left out, and why: non-commercial, research only, or no licence stated by those who hold the rights.
LEFT_OUT: dict[str, str] = {
    "wic": "CC BY-NC 4.0",
    "race": "non-commercial research only",
    "qqp": "Quora's terms: non-commercial",
    "yelp_polarity": "Yelp's terms: academic use",
    "mrpc": "Microsoft's research licence",
    "stsb": "mixed sources, some without a licence",
    "cola": "copyright of the cited works",
    "sst2": "research use, no licence stated",
    "cr": "research use, no licence stated",
    "cb": "no licence stated",
    "copa": "no licence stated",
    "multirc": "no licence stated",
    "rte": "no licence stated",
    "wsc": "no licence stated",
}


def licence_of(task: str) -> str:
    """The licence a released prompt of a task gets.

    Raises:
        UsageError: the task's data does not allow one.
    """
    if task in GENERATED:
        return "Apache-2.0"
    for source in REAL_SOURCES:
        if source.task == task:
            return source.licence
    reason = LEFT_OUT.get(task, "its licence was not looked into")
    raise UsageError(f"a prompt of task {task!r} cannot be released: {reason}. Leave it out of --tasks.")


def build(
    backbone: Backbone,
    library: Library,
    tasks: Sequence[Task],
    settings: TrainSettings,
    *,
    seeds: Sequence[int],
    work: Path,
    together: int = 4,
    train_rows: int | None = None,
    validation_rows: int | None = None,
    command: str = "",
    accepted: Callable[[PromptRecord], bool] | None = None,
) -> Iterator[Manifest]:
    """Train what the library lacks, some tasks at a time, and add it; gives the manifest of each prompt added.

    Args:
        backbone: frozen.
        library: added to; prompts of the same name made otherwise are replaced.
        tasks: sources.
        settings: of every run.
        seeds: one run a task and seed.
        work: folder of the trainings, one below it for each batch of tasks.
        together: tasks that train in one batch.
        train_rows: at most this many training rows of a task.
        validation_rows: the same for validation.
        command: stored with the prompts.
        accepted: which prompts may ship; `clear_of_chance` if None.
    """
    accepted = accepted or clear_of_chance
    if not settings.embedding_step or settings.embedding_step > settings.steps:
        raise UsageError(
            f"embedding_step is {settings.embedding_step} of {settings.steps} steps; a library needs task embeddings: "
            "choose a step within the training."
        )
    settings = settings.resolved(backbone)
    licences = {task.name: licence_of(task.name) for task in tasks}
    missing: list[TaskData] = []
    for task in tasks:
        data = task_data(backbone, task, settings, train_rows=train_rows, validation_rows=validation_rows)
        if not all(_there(library, backbone, data, settings, seed) for seed in seeds):
            missing.append(data)
    for start in range(0, len(missing), together):
        batch = missing[start : start + together]
        folder = work / _batch_name(batch, settings, seeds, backbone)
        records = tune_tasks(
            backbone, batch, settings, seeds=seeds, folder=folder, resume=True, command=command, compared=True
        )
        for record in records:
            if not accepted(record):
                print(
                    f"{record.task}, seed {record.seed}: {record.scores} is not clearly above chance, left out",
                    file=sys.stderr,
                )
                continue
            stored = library.add(_licensed(record, licences[record.task]), replace=True)
            yield stored.manifest


def clear_of_chance(record: PromptRecord) -> bool:
    """Whether a prompt's score is two standard errors above that of the most frequent label (free text: of its start)."""
    beside, rows = record.recipe["beside"], int(record.recipe["report_rows"])
    chance = beside["zero_step"] if beside["majority"] is None else beside["majority"]
    share = min(max(chance / 100, 1 / rows), 1 - 1 / rows)
    return bool(record.scores["score"] >= chance + 200 * (share * (1 - share) / rows) ** 0.5)


def _licensed(record: PromptRecord, licence: str) -> PromptRecord:
    credit = next((s.credit for s in REAL_SOURCES if s.task == record.task), "generated by the project")
    return replace(record, licence=licence, origin=f"data: {credit}")


def _there(library: Library, backbone: Backbone, data: TaskData, settings: TrainSettings, seed: int) -> bool:
    name = default_name(data.task.name, seed)
    if name not in library:
        return False
    known = library.get(name).manifest
    wanted = json.loads(json.dumps(asdict(settings)))
    del wanted["micro_batch_tokens"]  # chosen for the device at hand; the prompt is the same to float tolerance
    return (
        known.backbone_fingerprint == backbone.fingerprint
        and known.data_fingerprint == data.train.fingerprint
        and all(known.recipe.get(key) == value for key, value in wanted.items())
    )


def _batch_name(batch: Sequence[TaskData], settings: TrainSettings, seeds: Sequence[int], backbone: Backbone) -> str:
    """Names a batch by all it depends on, so that another request never meets its run folder."""
    identity = [[d.task.name, d.train.fingerprint] for d in batch], asdict(settings), list(seeds), backbone.fingerprint
    return "batch-" + hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build the released library.")
    parser.add_argument("--work", type=Path, default=Path("runs/released"), help="folder of the trainings")
    parser.add_argument("--out", type=Path, default=None, help="the library; the package's own if not given")
    parser.add_argument(
        "--data", type=Path, default=None, help="folder of real tasks; built-in ones alone if not given"
    )
    parser.add_argument(
        "--tasks", default=None, help="names, between commas; every source that may be released if not given"
    )
    parser.add_argument("--seeds", default="1,2,3", help="numbers, between commas")
    parser.add_argument("--recipe", default="quick")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument(
        "--embedding-step", type=int, default=None, help="of every task embedding; the recipe's if not given"
    )
    parser.add_argument("--together", type=int, default=4, help="tasks that train in one batch")
    parser.add_argument("--train-rows", type=int, default=None)
    parser.add_argument("--validation-rows", type=int, default=500)
    parser.add_argument("--backbone", default="builtin")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """The command; prints one JSON line a prompt."""
    options = _options(arguments)
    names = (
        options.tasks.split(",") if options.tasks else [*DEMO_SOURCES, *(s.task for s in REAL_SOURCES if options.data)]
    )
    changes = {} if options.embedding_step is None else {"embedding_step": options.embedding_step}
    try:
        for name in names:
            licence_of(name)
        backbone = load_backbone(options.backbone, device=options.device, dtype=options.dtype)
        tasks = [load_task(name, options.data if name not in GENERATED else None) for name in names]
        added = build(
            backbone,
            Library(options.out or FOLDERS.get(options.backbone, FOLDER)),
            [for_backbone(task, backbone.kind) for task in tasks],
            recipe(options.recipe, steps=options.steps, **changes),
            seeds=[int(seed) for seed in options.seeds.split(",")],
            work=options.work,
            together=options.together,
            train_rows=options.train_rows,
            validation_rows=options.validation_rows,
            command=shlex.join(["python", "recipes/build_released_library.py", *arguments]),
        )
        for manifest in added:
            line = {"name": manifest.name, "licence": manifest.licence, "best_step": manifest.best_step}
            print(json.dumps({**line, "scores": dict(manifest.scores)}), flush=True)
    except SoftpromptError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
