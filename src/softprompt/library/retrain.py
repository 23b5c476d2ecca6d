"""A library made again on another backbone, from its manifests: the same tasks, recipes and seeds.

A prompt cannot move between backbones; its manifest says how to tune it anew (`retrain_plan`). A manifest is what somebody
else wrote: the task it names is looked up among the catalogue's and those the user names, and never opened as a file
(`task_of`), so that a library from elsewhere runs nothing of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path

from softprompt.artifacts import check_name
from softprompt.errors import SoftpromptError, UsageError
from softprompt.library.manifest import Manifest
from softprompt.library.record import BackboneIdentity, PromptRecord
from softprompt.library.store import Library, StoredPrompt
from softprompt.tasks.catalog import load_task
from softprompt.tasks.task import Task


def task_of(manifest: Manifest, data: str | Path | None = None, named: Sequence[Task] = ()) -> Task:
    """The task a prompt was tuned on, by the name in its manifest.

    Args:
        manifest: of the prompt; whoever made the library wrote it.
        data: the user's data folder (`load_task`).
        named: tasks that the user opened, by path or from the hub; the only ones that may hold code.

    Raises:
        UsageError: the manifest names a file, an address or anything else that is not a plain name.
        UnknownNameError, DataError: no such task.
    """
    for task in named:
        if task.name == manifest.task:
            return task
    try:
        check_name(manifest.task, "task")
    except UsageError as error:
        raise UsageError(
            f"prompt {manifest.name!r} names the task {manifest.task!r}, which is no plain name and was not opened: "
            "give the task yourself with --task PATH."
        ) from error
    return load_task(manifest.task, data)


@dataclass(frozen=True, kw_only=True, eq=False)
class RetrainPlan:
    """What can be made again, and what cannot.

    Attributes:
        prompts: in order of names; their manifests say how.
        impossible: by name, why not (no recipe: an import).
    """

    prompts: tuple[StoredPrompt, ...]
    impossible: Mapping[str, str]


def retrain_plan(library: Library, backbone: BackboneIdentity, names: Iterable[str] | None = None) -> RetrainPlan:
    """What to tune anew so that a library exists on another backbone, from its manifests alone.

    Args:
        library: on the old backbone.
        backbone: the new one.
        names: which prompts; all where None.

    Raises:
        UnknownNameError: a name the library does not have.
    """
    found = [library.get(name) for name in (library.names() if names is None else names)]
    impossible = {prompt.name: why for prompt in found if (why := _why_not(prompt.manifest, backbone))}
    return RetrainPlan(prompts=tuple(p for p in found if p.name not in impossible), impossible=impossible)


def _why_not(manifest: Manifest, backbone: BackboneIdentity) -> str:
    if manifest.backbone_fingerprint == backbone.fingerprint:
        return f"it was made on {backbone.name} already"
    if not manifest.recipe:
        return "its manifest holds no recipe (an import?): tune it by 'softprompt train'"
    return ""


@dataclass(frozen=True, kw_only=True)
class Retrained:
    """What came of one prompt.

    Attributes:
        name: of the prompt.
        before: percent, on the old backbone.
        after: percent, on the new one; None where it failed.
        problem: what went wrong; empty where nothing did.
    """

    name: str
    before: float | None
    after: float | None
    problem: str = ""


def retrain(
    plan: RetrainPlan, into: Library, train: Callable[[StoredPrompt], PromptRecord], *, replace: bool = False
) -> list[Retrained]:
    """Tune every prompt of a plan anew and put it into a library, as soon as it is done.

    Prompts that the new library has already are skipped unless ``replace``, so a stopped call can be made again. One
    that fails does not stop the others.

    Args:
        plan: from `retrain_plan`.
        into: where to; may not be the old library's place.
        train: tunes one prompt anew on the new backbone.
        replace: whether prompts of the new library are made again.
    """
    found = []
    for old in plan.prompts:
        if old.name in into and not replace:
            continue
        before = old.manifest.score
        try:
            record = train(old)
        except SoftpromptError as error:
            if error.exit_code == 75:  # stopped on request: go on next time
                raise
            found.append(Retrained(name=old.name, before=before, after=None, problem=str(error)))
            continue
        origin = f"retrained from {old.place} ({old.manifest.backbone_name})"
        into.add(changed(record, name=old.name, origin=origin), replace=replace)
        found.append(Retrained(name=old.name, before=before, after=record.scores.get("score")))
    return found
