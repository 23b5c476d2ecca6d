"""``softprompt library retrain``: the same tasks, recipes and seeds on another backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from softprompt.cli import opening
from softprompt.cli import options as o
from softprompt.cli.app import command
from softprompt.cli.flags import Flags, among, changes_of, flag
from softprompt.cli.library import Place, Replace, library
from softprompt.cli.output import Answer, both, lines, table
from softprompt.cli.progress import training
from softprompt.errors import SoftpromptError, UsageError
from softprompt.fields import kinds

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone
    from softprompt.library.manifest import Manifest
    from softprompt.library.record import PromptRecord
    from softprompt.library.store import StoredPrompt
    from softprompt.tasks.task import Task
    from softprompt.training.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class AgainFlags(Flags):
    """How prompts are tuned again."""

    data: o.Data = None
    task: Annotated[
        list[str] | None, flag("--task", "A task of your own, by path: manifests may not name files. May be repeated.")
    ] = None
    out: Annotated[Path, flag("--out", "Run directories.")] = Path("runs/retrain")
    resume: o.Resume = False
    set_: o.Set = None


@command(
    library, "retrain", "softprompt library retrain prompts smollm2-prompts --backbone smollm2 --data DIR",
    "softprompt library retrain prompts other --backbone google/t5-base-lm-adapt --prompt cb@1 --data DIR",
)  # fmt: skip
def retrain(
    place: Place,
    into: Annotated[str, typer.Argument(help="The new library: a folder or URL.", show_default=False)],
    *,
    backbone: Annotated[str, flag("--backbone", "The new backbone.", complete=among(o.BACKBONES), show_default=False)],
    names: Annotated[list[str] | None, flag("--prompt", "Only this prompt; may be repeated.")] = None,
    again: AgainFlags,
    replace: Replace = False,
    device: o.DeviceFlags,
    revision: o.Revision = None,
) -> Answer:
    """Tune a library again on another backbone, from its manifests.

    Tasks are found by their names, in the catalogue and in --data. Code runs only where you name its file with --task.
    """
    from softprompt.library.retrain import retrain as tune_again
    from softprompt.library.retrain import retrain_plan

    old = opening.open_library(place)
    own = opening.open_tasks(again.task or [], again.data)
    model = opening.open_backbone(backbone, device.dtype, device.device, revision)
    plan = retrain_plan(old, model, list(names) if names else None)
    target = opening.open_library(into, must_exist=False)
    found = tune_again(plan, target, lambda old: _tuned(old, model, own, again), replace=replace)
    rows = [[r.name, r.before, r.after, r.problem or None] for r in found]
    notes = [f"not possible: {name}: {why}" for name, why in plan.impossible.items()]
    if found and all(r.problem for r in found):
        raise SoftpromptError(f"no prompt could be retrained: {'; '.join(f'{r.name}: {r.problem}' for r in found)}")
    shown = table(["prompt", "old score", "new score", "problem"], rows)
    told = lines(*notes, f"{sum(not r.problem for r in found)} prompt(s) now in {target.location}")
    return Answer(
        data={"library": target.location, "prompts": found, "impossible": plan.impossible}, show=both(shown, told),
        next=[("library", "ls", into), ("serve", into)],
    )  # fmt: skip


def _tuned(old: StoredPrompt, model: Backbone, own: Sequence[Task], again: AgainFlags) -> PromptRecord:
    """A prompt tuned anew as its manifest says."""
    from softprompt.api import tune_tasks
    from softprompt.library.retrain import task_of
    from softprompt.tasks.tuned import reworded, wording_of

    facts = old.manifest
    recorded = _recorded(facts)
    settings = recorded.having(**changes_of(kinds(type(recorded)), again.set_ or ()))
    (opened,) = opening.worded([task_of(facts, again.data, own)], "auto", model)
    wording = wording_of(facts)
    # A decoder reads natural language and the others the papers' form; between two of a kind the wording stays.
    if wording is not None and (facts.backbone_kind == "causal") == (model.kind == "causal"):
        opened = reworded(opened, wording)
    chat = facts.chat
    if chat is not None:  # the new backbone's own template, with the old system turn
        (opened,) = opening.in_chat([opened], True, _text(chat.get("system")), model)
    rows = facts.recipe.get("train_rows")
    (encoded,) = opening.encode(model, [opened], settings, rows if isinstance(rows, int) else None)
    role: Literal["scratch", "source"] = "scratch" if facts.init.get("kind") == "class-labels" else "source"
    folder = again.out / facts.name
    with training(facts.name) as observer:
        records = tune_tasks(
            model, [encoded], settings, seeds=[facts.seed], role=role, folder=folder, resume=again.resume,
            observer=observer, command=opening.command_line(),
        )  # fmt: skip
    if not records:
        raise SoftpromptError(f"the training of {facts.name} met a loss that is not finite; see {folder}")
    return records[0]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _recorded(facts: Manifest) -> TrainSettings:
    """The settings of a manifest's recipe.

    Raises:
        UsageError: a value is of another type than the setting.
    """
    import json

    from pydantic import TypeAdapter, ValidationError

    from softprompt.errors import wrong_fields
    from softprompt.training.settings import TrainSettings

    known = {name: value for name, value in facts.recipe.items() if name in TrainSettings.names()}
    try:
        return TypeAdapter(TrainSettings).validate_json(json.dumps(known), strict=True)
    except ValidationError as error:
        raise UsageError(f"the recipe of prompt {facts.name!r} cannot be used: {wrong_fields(error)}.") from error
