"""``softprompt library``: look at, check and change a library of prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from softprompt import waits
from softprompt.cli import opening
from softprompt.cli import options as o
from softprompt.cli.app import command, group
from softprompt.cli.flags import flag
from softprompt.cli.output import AT_HAND, Answer, both, lines, named, plain, table
from softprompt.cli.searching import named_by_task
from softprompt.errors import CorruptArtifactError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from softprompt.library.index import Entry
    from softprompt.library.manifest import Manifest
    from softprompt.library.store import Library

library = group("library", "List, show, check, copy, share and export prompts.")

Place = Annotated[str, typer.Argument(help="Library: a folder, a URL, or `released`.", show_default=False)]
Name = Annotated[str, typer.Argument(help="Name of the prompt.", show_default=False)]
Replace = Annotated[bool, flag("--replace", "Replace a prompt of the same name.")]


@command(library, "ls", "softprompt library ls prompts", "softprompt library ls released --task mnli")
def ls(
    place: Place,
    task: Annotated[str | None, flag("--task", "Only prompts of this task.")] = None,
    tag: Annotated[str | None, flag("--tag", "Only prompts with this tag.")] = None,
    unverified: Annotated[bool, flag("--unverified", "Only those without a fingerprint.")] = False,
) -> Answer:
    """List prompts."""
    store = opening.open_library(place)
    entries = store.list(task=task, tag=tag, verified=False if unverified else None)
    problems = dict(store.index.problems)
    whose = ["prompt (task@seed)"] if named_by_task(entries) else ["prompt", "task"]
    shown = table(
        [*whose, "score", "tokens", "width", "backbone", "embedding", "licence"],
        [[*(entry.name, entry.task)[: len(whose)], *_headline(entry)] for entry in entries],
    )
    notes = [f"left out: {problem}" for problem in problems.values()]
    end = lines(f"{len(entries)} prompt(s) in {store.location}", *notes)
    data = {"library": store.location, "prompts": entries, "problems": problems}
    after = [("library", "show", place, entries[0].name), ("predict", place, "--prompt", entries[0].name, "TEXT"),
             ("serve", place)] if entries else [("train", AT_HAND, "--library", place), ("library", "add", place, "released")]  # fmt: skip
    return Answer(data=data, show=both(shown, end) if entries else end, next=after)


def _headline(entry: Entry) -> list[object]:
    backbone = entry.backbone_name if entry.verified else f"{entry.backbone_name} (unverified)"
    key = "yes" if entry.has_task_embedding else "no"
    return [entry.score, entry.prompt_length, entry.width, backbone, key, entry.licence]


@command(library, "show", "softprompt library show prompts cb@1", "softprompt library show prompts cb@1 --read")
def show(
    place: Place,
    name: Name,
    *,
    read: Annotated[bool, flag("--read", "Load the backbone and show the words nearest to each prompt token.")] = False,
    backbone: Annotated[str | None, flag("--backbone", "Backbone for --read; the prompt's own if not given.")] = None,
    held: o.DeviceFlags,
) -> Answer:
    """Show everything known of a prompt."""
    stored = opening.open_library(place).get(name)
    facts = {**plain(stored.manifest), "place": stored.place, "verified": stored.manifest.verified}
    shown = named(_facts(stored.manifest, stored.place))
    after = [("predict", place, "--prompt", name, "TEXT"), ("library", "export", place, name, f"{name}-peft")]
    if not read:
        return Answer(data=facts, show=shown, next=after)
    from softprompt.prompts.inspect import read_prompt, start_again

    manifest = stored.manifest
    model = opening.open_backbone(backbone or manifest.backbone_name, held.dtype, held.device)
    stored.check_backbone(model)
    initial = start_again(model, manifest.init, manifest.prompt_length, manifest.seed)
    reading = read_prompt(model, stored.prompt(), initial_PH=initial)
    rows = [
        [
            row.position,
            row.norm,
            row.distance_from_vocabulary,
            row.distance_from_initial,
            ", ".join(f"{n.token} {n.cosine:.2f}" for n in row.nearest),
        ]
        for row in reading.rows
    ]
    columns = ["token", "norm", "from vocabulary", "from start", "nearest words (cosine)"]
    facts["reading"] = plain(reading)
    end = lines(f"mean norm {reading.mean_norm:.2f}, the vocabulary's {reading.vocabulary_norm:.2f}")
    return Answer(data=facts, show=both(shown, table(columns, rows), end), next=after)


def _facts(manifest: Manifest, place: str) -> dict[str, object]:
    from softprompt.library.formats.card import chat_form, data_source

    fingerprint = manifest.backbone_fingerprint or "unverified: it carries no fingerprint of its backbone"
    return {
        "prompt": manifest.name,
        "task": manifest.task,
        "scores": ", ".join(f"{key} {value:.2f}" for key, value in manifest.scores.items() if value is not None) or "-",
        "prompt tokens x width": f"{manifest.prompt_length} x {manifest.width} {manifest.dtype}",
        "backbone": f"{manifest.backbone_name} ({manifest.backbone_kind})",
        "fingerprint": fingerprint,
        "seed": manifest.seed,
        "steps (best)": "-" if manifest.steps is None else f"{manifest.steps} ({manifest.best_step})",
        "task embedding": f"step {manifest.embedding_step}" if manifest.has_task_embedding else "none",
        "started from": ", ".join(f"{key} {value}" for key, value in manifest.init.items()) or "-",
        "data": manifest.data_fingerprint or "-",
        "data source": data_source(manifest),
        "inputs": chat_form(manifest),
        "recipe": ", ".join(f"{key} {value}" for key, value in manifest.recipe.items()) or "-",
        "facts": ", ".join(f"{key} {value:.4g}" for key, value in manifest.facts.items() if value is not None) or "-",
        "licence": manifest.licence,
        "tags": ", ".join(manifest.tags) or "-",
        "origin": manifest.origin or "trained with softprompt",
        "made": manifest.created,
        "made by": manifest.command or "-",
        "made with": ", ".join(f"{key} {value}" for key, value in manifest.versions.items()) or "-",
        "place": place,
    }


@command(
    library,
    "add",
    "softprompt library add prompts other-prompts",
    "softprompt library add prompts runs/paper --prompts all",
)
def add(
    place: Place,
    source: Annotated[str, typer.Argument(help="Another library, or the ledger of a study.", show_default=False)],
    names: Annotated[list[str] | None, typer.Argument(help="Prompts to copy; all if none is named.")] = None,
    replace: Replace = False,
    which: Annotated[str | None, flag("--study", "Of a ledger with several studies.")] = None,
    of: Annotated[
        Literal["sources", "targets", "all"],
        flag("--prompts", "Of a study: its source prompts, the best of each target, or both."),
    ] = "sources",
) -> Answer:
    """Copy prompts of another library or of a study's ledger."""
    from softprompt.study.prompts import is_ledger

    target = opening.open_library(place, must_exist=False)
    if is_ledger(source):
        return _add_study(target, place, source, which, of, list(names or ()), replace)
    origin = opening.open_library(source)
    chosen = list(names) if names else origin.names()
    if not chosen:
        raise UsageError(f"library {source} holds no prompts; nothing was copied.")
    prompts = [origin.get(name) for name in chosen]
    opening.refuse_taken(target, chosen, replace=replace)
    copied = [target.copy_from(prompt, replace=replace).name for prompt in waits.each("copying prompts", prompts)]
    data = {"library": target.location, "added": copied}
    told = lines(f"added {', '.join(copied)} to {target.location}")
    return Answer(data=data, show=told, next=_after(place))


def _after(place: str) -> list[tuple[object, ...]]:
    """What a library is for."""
    return [("library", "ls", place), ("search", AT_HAND, "--library", place), ("serve", place)]


def _add_study(
    target: Library, place: str, ledger: str, which: str | None, of: str, names: list[str], replace: bool
) -> Answer:
    from softprompt.study.prompts import ROLES, named_apart, study_records

    roles = tuple(role for role in ROLES if of in ("all", role))
    records = {record.library_name: record for record in named_apart(study_records(ledger, which, roles))}
    for name in names:
        if name not in records:
            raise UnknownNameError("prompt of the study", name, records)
    chosen = [records[name] for name in names or records]
    opening.refuse_taken(target, [record.library_name for record in chosen], replace=replace)
    added = [target.add(record, replace=replace).name for record in waits.each("copying prompts", chosen)]
    data = {"library": target.location, "added": added}
    return Answer(data=data, show=lines(f"added {', '.join(added)} to {target.location}"), next=_after(place))


@command(library, "rm", "softprompt library rm prompts cb@1", "softprompt library rm prompts cb@1 rte@1")
def rm(
    place: Place, names: Annotated[list[str], typer.Argument(help="Prompts to remove.", show_default=False)]
) -> Answer:
    """Remove prompts."""
    store = opening.open_library(place)
    known = store.names()
    for name in names:
        # Not opened: a damaged prompt can be removed too.
        if name not in known:
            raise UnknownNameError("prompt", name, known)
    for name in names:
        store.remove(name)
    return Answer(
        data={"library": store.location, "removed": names},
        show=lines(f"removed {', '.join(names)} from {store.location}"),
        next=[("library", "ls", place), ("library", "verify", place)],
    )


@command(library, "verify", "softprompt library verify prompts", "softprompt library verify prompts cb@1")
def verify(
    place: Place, names: Annotated[list[str] | None, typer.Argument(help="Prompts to check; all if none.")] = None
) -> Answer:
    """Hash every file and say which prompts are not what was written."""
    store = opening.open_library(place)
    problems = dict(store.verify(list(names) if names else None))
    count = f"{len(names) if names else len(store.names())} prompt(s)"
    if problems:
        told = "; ".join(problem for found in problems.values() for problem in found)
        raise CorruptArtifactError(f"{len(problems)} of {count} in {store.location} are damaged: {told}")
    return Answer(
        data={"library": store.location, "checked": len(names or store.names()), "problems": {}},
        show=lines(f"{count} in {store.location}: every file is what was written"),
        next=_after(place),
    )
