"""``softprompt sharpt relations`` and ``skills``: what a latent space says of tasks, and how it came to be used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from softprompt.cli import opening
from softprompt.cli import options as o
from softprompt.cli.app import command
from softprompt.cli.flags import flag, spelled
from softprompt.cli.output import AT_HAND, Answer, both, lines, table
from softprompt.cli.sharpt import Cache, SpaceFolder, kept_in, sharpt
from softprompt.errors import UsageError


@command(
    sharpt, "relations", "softprompt sharpt relations --space runs/space/space --sources glue --targets cb,rte --data DIR",
    "softprompt sharpt relations --space runs/space/space --sources sst2,mnli --targets cb --data DIR --figure map.svg",
)  # fmt: skip
def relations(
    *,
    space: SpaceFolder,
    sources: o.Sources,
    targets: Annotated[
        str, flag("--targets", "Target tasks, likewise.", complete=o.mixture_completion, show_default=False)
    ],
    figure: o.Figure = None,
    data: o.Data = None,
    model: o.PromptBackboneFlags,
    train_rows: o.TrainRows = None,
    cache: Cache = None,
) -> Answer:
    """Relate tasks by the skills they use (Figure 3)."""
    from softprompt.methods.sharpt.relations import relations as relate
    from softprompt.methods.sharpt.relations import task_encodings
    from softprompt.methods.sharpt.space import load_space, space_encoder
    from softprompt.report.skills import relations_heatmap

    _drawable(figure)
    loaded = load_space(space)
    left, right = (opening.open_mixture(given, data)[1] for given in (sources, targets))
    backbone = model.open(own=loaded.backbone["name"])
    encoder = space_encoder(loaded, backbone, kept_in(cache))
    tasks = {t.name: t for t in (*left, *right)}
    encoded = {
        name: task_encodings(encoder, loaded, task, task.split("train", max_rows=train_rows).examples)
        for name, task in tasks.items()
    }
    found = relate(
        loaded.prompter(backbone, encoder), {t.name: encoded[t.name] for t in left}, {t.name: encoded[t.name] for t in right},
        categories={t.name: t.category.replace("_", " ") for t in tasks.values()},
    )  # fmt: skip
    drawn = [relations_heatmap(found, figure)] if figure is not None else []
    cosine = found.cosine_AB.tolist()
    rows = [[name, *(f"{value:.3f}" for value in row)] for name, row in zip(found.sources, cosine, strict=True)]
    shown = both(table(["source", *found.targets], rows), lines(*(f"figure: {path}" for path in drawn)))
    after = [("sharpt", "adapt", "--space", space, "--task", right[0].name, *spelled({"data": data}), *model.words()),
             ("sharpt", "skills", space)]  # fmt: skip
    return Answer(data={**found.plain(), "figure": figure}, show=shown, next=after)


def _drawable(figure: Path | None) -> None:
    """Raises UsageError for a figure of another kind, before anything is computed."""
    if figure is not None and figure.suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"--figure {figure} must end in .png or .svg.")


@command(
    sharpt, "skills", "softprompt sharpt skills runs/space", "softprompt sharpt skills runs/space --figure use.svg"
)
def skills(
    run: Annotated[Path, typer.Argument(help="Folder of `sharpt train`, or a space in it.", show_default=False)],
    figure: o.Figure = None,
) -> Answer:
    """Show how many skills were in use as a space was learned."""
    from softprompt.report.skills import skill_use_curve

    _drawable(figure)
    history = _history(run)
    drawn = [skill_use_curve(history, figure)] if figure is not None else []
    first, last = ({r["run"]: r for r in order} for order in (reversed(history), history))
    rows = [[n, r["step"], first[n]["used"], r["used"], r["dead"], round(r["perplexity"], 2)] for n, r in last.items()]
    shown = table(["run", "last step", "used at the start", "skills used", "dead", "perplexity"], rows)
    space = run if (run / "manifest.json").is_file() else run / "space"
    return Answer(
        data={"history": history, "figure": figure}, show=both(shown, lines(*(f"figure: {path}" for path in drawn))),
        next=[("sharpt", "adapt", "--space", space, "--task", AT_HAND), ("sharpt", "train", "--help")],
    )  # fmt: skip


def _history(folder: Path) -> list[dict[str, Any]]:
    """The measurements of skill use of a run: in its folder, in the run directory below it, or beside a space of it.

    Raises:
        UsageError: there is none.
    """
    from softprompt.methods.sharpt.train import skill_history

    for place in (folder, folder / "run", folder.parent / "run"):
        found = skill_history(place)
        if found:
            return found
    raise UsageError(
        f"{folder} holds no measurement of skill use: give the folder of `softprompt sharpt train` (--out); a space without "
        "source training or without a latent space has none."
    )
