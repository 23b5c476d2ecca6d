"""What a transfer asks of a library, looked at before anything is trained."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from softprompt.backbones.base import Backbone
from softprompt.errors import UnknownNameError, UsageError
from softprompt.library.index import Entry
from softprompt.library.store import Library
from softprompt.methods.sharpt.space import Space
from softprompt.methods.spot.settings import RANKING, TransferSettings
from softprompt.training.settings import TrainSettings


def at_library_step(
    train: TrainSettings, library: Library, backbone: Backbone | None, asked: Collection[str]
) -> TrainSettings:
    """The settings with the embedding step of the library's prompts, since embeddings of one step compare best.

    Args:
        train: of a target.
        library: source prompts; where they were taken at several steps, or none has a task embedding, nothing is changed.
        backbone: whose prompts count; all where None.
        asked: names of settings that a person gave: an ``embedding_step`` among them stays.
    """
    steps = {entry.embedding_step for entry in library.list(backbone=backbone) if entry.has_task_embedding}
    if "embedding_step" in asked or len(steps) != 1:
        return train
    (step,) = steps
    return train if step is None else train.having(embedding_step=step)


def check_sources(
    library: Library, backbone: str, sources: Sequence[Entry], targets: Sequence[str], settings: TransferSettings
) -> None:
    """Refuse what the source prompts cannot give.

    Args:
        library: holds the source prompts.
        backbone: its name, for messages.
        sources: the prompts that fit it and may be used.
        targets: names of the target tasks.
        settings: strategies, and the source prompt of ``generic``.

    Raises:
        UsageError: no source prompt; a strategy ranks where there is nothing to rank; ``generic`` starts from a target's own.
        UnknownNameError: the source prompt of ``generic`` is not there.
    """
    if not sources:
        raise _no_source(library, backbone)
    if "generic" in settings.strategies:
        _check_generic(sources, targets, settings.generic)
    _check_rankable(library, sources, targets, settings)


def _no_source(library: Library, backbone: str) -> UsageError:
    """What the library has instead of source prompts for the backbone."""
    others = library.list()
    names = ", ".join(sorted({entry.backbone_name for entry in others}))
    found = f"it has {len(others)} of {names}" if others else "it has none at all"
    return UsageError(
        f"library {library.location} holds no source prompt for backbone '{backbone}' ({found}): train some with "
        "'softprompt train --library', or name another library or backbone."
    )


def _check_generic(sources: Sequence[Entry], targets: Sequence[str], name: str) -> None:
    """Refuse, before anything is trained, a prompt that is not there or is a target's own.

    Raises:
        UnknownNameError: no source prompt for this backbone has the name.
        UsageError: it was tuned on a target, which is no transfer.
    """
    tasks = {entry.name: entry.task for entry in sources}
    if name not in tasks:
        raise UnknownNameError("source prompt", name, tasks)
    if tasks[name] in targets:
        raise UsageError(
            f"strategy 'generic' was to start from '{name}', which was tuned on target '{tasks[name]}' itself: name a source "
            "prompt of another task."
        )


def check_space(strategies: Sequence[str], *, given: bool) -> None:
    """Refuse SharPT without a latent space, and a space that no strategy asks for.

    Args:
        strategies: that are tried.
        given: whether there is a space.

    Raises:
        UsageError: one is there without the other.
    """
    if "sharpt" in strategies and not given:
        raise UsageError(
            "strategy sharpt adapts a latent space, and none was given: name its folder with --space (space= in Python); "
            "`softprompt sharpt train` makes one."
        )
    if given and "sharpt" not in strategies:
        raise UsageError(
            f"a latent space was given, and the strategies are {', '.join(strategies)}: add sharpt to them, or leave the "
            "space out."
        )


def check_learned_elsewhere(space: Space, targets: Sequence[str]) -> None:
    """Refuse what is no latent space, and one that has learned from a target.

    Args:
        space: that strategy ``sharpt`` is to adapt.
        targets: names of the target tasks.

    Raises:
        UsageError: it is an adapted prompt, or a target is among its source tasks, which is no transfer.
    """
    if space.kind != "space":
        raise UsageError(
            f"{space.name!r} is a generator adapted to {space.task}: strategy sharpt takes the latent space it came from, the folder "
            "of `softprompt sharpt train`."
        )
    sources = sorted(name.rpartition("/")[0] for name in space.training.get("data", {}))
    if own := sorted(set(sources) & set(targets)):
        raise UsageError(
            f"latent space {space.name!r} was learned on {', '.join(sources)}, target {', '.join(own)} among them, which is no "
            "transfer: name a space of other tasks."
        )


def check_searchable(
    library: Library, sources: Sequence[Entry], task: str, embedding_step: int, *, use_prompts: bool = False
) -> str:
    """Refuse, before a task embedding is trained, a search that has nothing to rank.

    Args:
        library: that is searched.
        sources: its prompts for the backbone.
        task: the target; its own prompts are not ranked.
        embedding_step: of the target's task embedding.
        use_prompts: prompts without a task embedding are compared by themselves.

    Returns:
        What a user should know of embeddings that were taken at other steps; empty where there is nothing.

    Raises:
        UsageError: no prompt of another task has a task embedding.
    """
    others = [entry for entry in sources if entry.task != task]
    keyed = [entry for entry in others if entry.has_task_embedding]
    if not keyed and not (use_prompts and others):
        raise UsageError(
            f"nothing in {library.location} can be ranked for {task}: it holds {len(others)} prompts of other tasks for this "
            "backbone, none with a task embedding; train some with 'softprompt train --library'."
        )
    steps = sorted({entry.embedding_step for entry in keyed if entry.embedding_step not in (None, embedding_step)})
    if not steps:
        return ""
    return (
        f"some prompts have the task embedding of step {', '.join(map(str, steps))} and the target's is of step "
        f"{embedding_step}: embeddings of one step compare best (--set embedding_step={steps[-1]})"
    )


def _check_rankable(
    library: Library, sources: Sequence[Entry], targets: Sequence[str], settings: TransferSettings
) -> None:
    """Refuse, before anything is trained, strategies that rank where there is nothing to rank.

    Raises:
        UsageError: naming the strategies, and the target or the setting.
    """
    ranking = [strategy for strategy in settings.strategies if strategy in RANKING]
    if settings.predictor:  # it ranks what a task embedding would
        ranking = [strategy for strategy in ranking if strategy != "best_of_top_k"]
    if not ranking:
        return
    named = ", ".join(ranking)
    if not settings.train.embedding_step:
        raise UsageError(f"{named} ranks by task embeddings: give an embedding_step above 0.")
    for target in targets:
        others = [entry for entry in sources if entry.task != target]
        if not any(entry.has_task_embedding for entry in others):
            found = (
                f"{len(others)} prompts of other tasks, none with a task embedding"
                if others
                else "only its own prompts"
            )
            raise UsageError(
                f"{named} ranks by task embeddings; for target '{target}' library {library.location} holds {found}: "
                "train source prompts of other tasks with 'softprompt train --library', or use the strategy 'race'."
            )
