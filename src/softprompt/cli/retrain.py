"""``softprompt library retrain``: the same tasks, recipes and seeds on another backbone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from softprompt.cli import options as o
from softprompt.cli.app import command
from softprompt.cli.library import Place, Replace, library
from softprompt.cli.output import Answer, both, lines, table
from softprompt.cli.progress import training
from softprompt.errors import SoftpromptError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from softprompt.backbones.base import Backbone
    from softprompt.library.manifest import PromptRecord
    from softprompt.library.retrain import RetrainItem

Start = Literal["cold", "warm", "both"]


@command(library, "retrain")
def retrain(
    place: Place,
    into: Annotated[str, typer.Argument(help="The new library: a folder or URL.", show_default=False)],
    backbone: Annotated[str, typer.Option("--backbone", help="The new backbone.", show_default=False)],
    names: Annotated[list[str] | None, typer.Option("--prompt", help="Only this prompt; may be repeated.")] = None,
    start: Annotated[
        Start, typer.Option("--start", help="cold; warm: the old prompt through both vocabularies; or both.")
    ] = "cold",
    method: Annotated[Literal["linear", "nearest"], typer.Option("--method", help="Of the warm start.")] = "linear",
    old_backbone: Annotated[
        str | None, typer.Option("--old-backbone", help="For warm starts; the manifest's name if not given.")
    ] = None,
    data: o.Data = None,
    out: Annotated[Path, typer.Option("--out", help="Run directories.")] = Path("runs/retrain"),
    resume: o.Resume = False,
    set_: o.Set = None,
    replace: Replace = False,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    revision: o.Revision = None,
) -> Answer:
    """Tune a library again on another backbone, from its manifests."""
    from softprompt.library.retrain import retrain as tune_again
    from softprompt.library.retrain import retrain_plan

    old = o.open_library(place)
    model = o.open_backbone(backbone, dtype, device, revision)
    plan = retrain_plan(old, model, list(names) if names else None)
    warm = _recycler(model, old_backbone, method, dtype, device) if start != "cold" else None
    target = o.open_library(into, must_exist=False)
    found = tune_again(
        plan, target, _trainer(model, data, out, resume, set_), warm, cold=start != "warm", replace=replace
    )
    rows = [[r.name, r.before, r.cold, r.warm, r.kept, r.problem or None] for r in found]
    notes = [f"not possible: {name}: {why}" for name, why in plan.impossible.items()]
    if found and not any(r.kept for r in found):
        raise SoftpromptError(f"no prompt could be retrained: {'; '.join(f'{r.name}: {r.problem}' for r in found)}")
    shown = table(["prompt", "old score", "cold", "warm", "kept", "problem"], rows)
    told = lines(*notes, f"{sum(r.kept is not None for r in found)} prompt(s) now in {target.location}")
    return Answer(
        data={"library": target.location, "prompts": found, "impossible": plan.impossible}, show=both(shown, told)
    )


def _trainer(
    model: Backbone, data: Path | None, out: Path, resume: bool, given: list[str] | None
) -> Callable[[RetrainItem, Tensor | None], PromptRecord]:
    """Tunes one item as its manifest says, from the usual start or from a given prompt."""
    from softprompt.api import tune_tasks
    from softprompt.prompts.init import InitSettings
    from softprompt.training.settings import TrainSettings

    def train(item: RetrainItem, prompt: Tensor | None) -> PromptRecord:
        known = set(TrainSettings.names())
        recorded = TrainSettings(**{name: value for name, value in item.recipe.items() if name in known})
        settings = o.changed_settings(recorded, given)
        (task,) = o.open_tasks([item.task], data)
        chat = item.old.manifest.chat
        if chat is not None:  # the new backbone's own template, with the old system turn
            (task,) = o.in_chat([task], True, chat.get("system"), model)
        (encoded,) = o.encode(model, [task], settings, item.recipe.get("train_rows"))
        scratch = item.init.get("kind") == "class-labels"
        start = InitSettings(kind="prompt", prompt=prompt, origin=item.name) if prompt is not None else None
        folder = out / f"{item.name}-{'warm' if prompt is not None else 'cold'}"
        with training(folder.name) as observer:
            records = tune_tasks(
                model, [encoded], settings, seeds=[item.seed], role="scratch" if scratch else "source", init=start,
                folder=folder, resume=resume, observer=observer, command=o.command_line(),
            )  # fmt: skip
        if not records:
            raise SoftpromptError(f"the training of {item.name} met a loss that is not finite; see {folder}")
        return records[0]

    return train


def _recycler(
    model: Backbone, old_name: str | None, method: Literal["linear", "nearest"], dtype: str, device: str
) -> Callable[[RetrainItem], Tensor]:
    """Carries an item's prompt through the two vocabularies; the old backbone is loaded once."""
    from softprompt.library.retrain import recycle, shared_tokens

    loaded: dict[str, Backbone] = {}

    def recycled(item: RetrainItem) -> Tensor:
        name = old_name or item.old.manifest.backbone_name
        if name not in loaded:
            loaded[name] = o.open_backbone(name, dtype, device)
        old = loaded[name]
        item.old.check_backbone(old)
        shared = shared_tokens(old.tokenizer, model.tokenizer)
        return recycle(item.old.prompt(), old.embedding_table(), model.embedding_table(), shared, method=method)

    return recycled
