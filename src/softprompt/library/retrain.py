"""A library made again on another backbone, from its manifests: the same tasks, recipes and seeds.

A prompt cannot move between backbones. Its manifest says how to tune it anew (`retrain_plan`), and its rows, read through
the two vocabularies, can be a warmer start than the usual one (`recycle`; Lester et al. 2022, "Reducing Retraining by
Recycling Parameter-Efficient Prompts"). Whether they are is measured: `retrain` tunes from both and reports both.

Letters: P prompt tokens, H the old width, G the new width, V the old vocabulary, W the new vocabulary, S shared tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from softprompt.errors import IncompatibleBackboneError, SoftpromptError, UnknownNameError, UsageError
from softprompt.library.manifest import BackboneIdentity, Manifest, PromptRecord, check_prompt
from softprompt.library.store import Library, StoredPrompt

RecycleMethod = Literal["linear", "nearest"]
_METHODS: tuple[RecycleMethod, ...] = ("linear", "nearest")
_WORD_BEGINS = ("\u2581", "\u0120")  # how SentencePiece and byte-level tokenizers mark the begin of a word


def shared_tokens(old_tokenizer: Any, new_tokenizer: Any) -> list[tuple[int, int]]:
    """Pairs (old id, new id) of tokens that both vocabularies have, special tokens left out, in order of old ids.

    The marks of word begins of different tokenizers count as the same.
    """
    special = {*old_tokenizer.all_special_tokens, *new_tokenizer.all_special_tokens}
    new = {_plain(token): i for token, i in new_tokenizer.get_vocab().items() if token not in special}
    old = {_plain(token): i for token, i in old_tokenizer.get_vocab().items() if token not in special}
    return sorted((i, new[token]) for token, i in old.items() if token in new)


def _plain(token: str) -> str:
    return " " + token[1:] if token.startswith(_WORD_BEGINS) else token


def recycle(
    prompt_PH: Tensor,
    old_table_VH: Tensor,
    new_table_WG: Tensor,
    shared: Sequence[tuple[int, int]],
    *,
    method: RecycleMethod = "linear",
    neighbours: int = 16,
    keep_relative_norm: bool = True,
) -> Tensor:
    """A prompt of one backbone carried through the two vocabularies' embeddings to another one, float32 [P, G].

    Args:
        prompt_PH: float [P, H], on the old backbone.
        old_table_VH: float [V, H], the old backbone's embeddings.
        new_table_WG: float [W, G], the new backbone's.
        shared: S pairs (old id, new id) of tokens that both have.
        method: ``linear``, one least-squares map from the old embeddings of the shared tokens to the new ones, applied to
            every row (v2v-lin in the paper); ``nearest``, every row as the least-squares combination of its nearest shared
            tokens, rebuilt from their new embeddings.
        neighbours: tokens a row is combined from, for ``nearest``.
        keep_relative_norm: whether each row is scaled so that its norm is to the new vocabulary's mean norm what it was to
            the old one's: trained prompts are often many times longer than any embedding.

    Raises:
        UsageError: no shared token, an id outside its table, or no such method.
        IncompatibleBackboneError: the prompt has not the old table's width.
    """
    if method not in _METHODS:
        raise UnknownNameError("way of recycling", method, _METHODS)
    check_prompt(prompt_PH, "the prompt to recycle")
    if prompt_PH.shape[1] != old_table_VH.shape[1]:
        raise IncompatibleBackboneError(
            f"the prompt has width {prompt_PH.shape[1]} and the old backbone's embeddings {old_table_VH.shape[1]}; "
            "recycle it with the backbone it was made on."
        )
    if not shared:
        raise UsageError("the two vocabularies share no token, so nothing can be carried over; start cold.")
    old_ids, new_ids = torch.tensor(shared, dtype=torch.int64).unbind(1)
    if (
        int(old_ids.max()) >= len(old_table_VH)
        or int(new_ids.max()) >= len(new_table_WG)
        or int(min(old_ids.min(), new_ids.min())) < 0
    ):
        raise UsageError(
            "a shared token's id lies outside its embedding table; make the pairs from the two tokenizers."
        )
    old_SH, new_SG = old_table_VH.detach().cpu()[old_ids].double(), new_table_WG.detach().cpu()[new_ids].double()
    rows_PH = prompt_PH.detach().cpu().double()
    if method == "linear":
        carried_PG = rows_PH @ _least_squares(old_SH, new_SG)
    else:
        carried_PG = _from_neighbours(rows_PH, old_SH, new_SG, neighbours)
    if keep_relative_norm:
        target_P = rows_PH.norm(dim=1) / _mean_norm(old_SH) * _mean_norm(new_SG)
        norm_P = carried_PG.norm(dim=1)
        carried_PG = carried_PG * (target_P / norm_P.where(norm_P > 0, 1.0))[:, None]
    return carried_PG.float()


def _least_squares(old_SH: Tensor, new_SG: Tensor) -> Tensor:
    """The map [H, G] of least squared error, and of least norm where the shared tokens do not decide it."""
    found: Tensor = torch.linalg.lstsq(old_SH, new_SG, driver="gelsd").solution
    return found


def _from_neighbours(rows_PH: Tensor, old_SH: Tensor, new_SG: Tensor, count: int) -> Tensor:
    unit_SH = torch.nn.functional.normalize(old_SH, dim=1)
    cosine_PS = torch.nn.functional.normalize(rows_PH, dim=1) @ unit_SH.T
    near_PK = cosine_PS.topk(min(count, len(old_SH)), dim=1).indices
    basis_PHK = old_SH[near_PK].transpose(1, 2)
    weights_PK1 = torch.linalg.lstsq(basis_PHK, rows_PH[:, :, None], driver="gelsd").solution
    carried_PG: Tensor = (weights_PK1 * new_SG[near_PK]).sum(1)
    return carried_PG


def _mean_norm(table: Tensor) -> float:
    return float(table.norm(dim=1).mean())


@dataclass(frozen=True, kw_only=True, eq=False)
class RetrainItem:
    """One prompt to be tuned anew.

    Attributes:
        name: of the old prompt, and of the new one.
        task: to tune on.
        seed: of the run.
        prompt_length: P.
        recipe: the settings it was tuned with.
        init: how it started.
        embedding_step: of its task embedding.
        score: percent, on the old backbone.
        old: the stored prompt.
    """

    name: str
    task: str
    seed: int
    prompt_length: int
    recipe: Mapping[str, Any]
    init: Mapping[str, Any]
    embedding_step: int | None
    score: float | None
    old: StoredPrompt


@dataclass(frozen=True, kw_only=True)
class RetrainPlan:
    """What can be made again, and what cannot.

    Attributes:
        items: in order of names.
        impossible: by name, why not (no recipe: an import).
    """

    items: tuple[RetrainItem, ...]
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
    items, impossible = [], {}
    for name in library.names() if names is None else names:
        stored = library.get(name)
        reason = _why_not(stored.manifest, backbone)
        if reason:
            impossible[name] = reason
            continue
        facts = stored.manifest
        items.append(
            RetrainItem(
                name=name,
                task=facts.task,
                seed=facts.seed,
                prompt_length=facts.prompt_length,
                recipe=facts.recipe,
                init=facts.init,
                embedding_step=facts.embedding_step,
                score=facts.score,
                old=stored,
            )
        )
    return RetrainPlan(items=tuple(items), impossible=impossible)


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
        cold: percent, on the new one from the usual start; None where not tried or failed.
        warm: percent, on the new one from the recycled prompt; likewise.
        kept: ``cold`` or ``warm``, the better one, now in the new library; None where both failed.
        problem: what went wrong; empty where nothing did.
    """

    name: str
    before: float | None
    cold: float | None
    warm: float | None
    kept: Literal["cold", "warm"] | None
    problem: str = ""


def retrain(
    plan: RetrainPlan,
    into: Library,
    train: Callable[[RetrainItem, Tensor | None], PromptRecord],
    recycled: Callable[[RetrainItem], Tensor] | None = None,
    *,
    cold: bool = True,
    replace: bool = False,
) -> list[Retrained]:
    """Tune every prompt of a plan anew and put the better of its starts into a library, as soon as it is done.

    Prompts that the new library has already are skipped unless ``replace``, so a stopped call can be made again. One
    that fails does not stop the others.

    Args:
        plan: from `retrain_plan`.
        into: where to; may not be the old library's place.
        train: tunes one item on the new backbone, from the usual start (None) or from a prompt [P, G].
        recycled: the recycled start of an item (see `recycle`); None to start cold only.
        cold: whether to tune from the usual start as well, which the warm start is measured against.
        replace: whether prompts of the new library are made again.

    Raises:
        UsageError: neither start was asked for.
    """
    if recycled is None and not cold:
        raise UsageError("retraining needs a start: cold, or a way to recycle the old prompts.")
    found = []
    for item in plan.items:
        if item.name in into and not replace:
            continue
        records: dict[Literal["cold", "warm"], PromptRecord] = {}
        problems: list[str] = []
        if cold:
            _attempt(records, problems, "cold", lambda item=item: train(item, None))  # type: ignore[misc]
        if recycled is not None:
            _attempt(records, problems, "warm", lambda item=item: train(item, recycled(item)))  # type: ignore[misc]
        scores = {start: record.scores.get("score") for start, record in records.items()}
        kept = max(
            records, key=lambda start: (-1e9 if scores[start] is None else scores[start], start == "cold"), default=None
        )
        if kept is not None:
            into.add(_as(records[kept], item, kept), replace=replace)
        found.append(
            Retrained(
                name=item.name,
                before=item.score,
                cold=scores.get("cold"),
                warm=scores.get("warm"),
                kept=kept,
                problem="; ".join(problems),
            )
        )
    return found


def _attempt(
    records: dict[Literal["cold", "warm"], PromptRecord],
    problems: list[str],
    start: Literal["cold", "warm"],
    make: Callable[[], PromptRecord],
) -> None:
    try:
        records[start] = make()
    except SoftpromptError as error:
        if error.exit_code == 75:  # stopped on request: go on next time
            raise
        problems.append(f"{start}: {error}")


def _as(record: PromptRecord, item: RetrainItem, start: str) -> PromptRecord:
    """The record under the old name, saying where it comes from."""
    values = {field: getattr(record, field) for field in record.__dataclass_fields__}
    values["name"] = item.name
    values["origin"] = f"retrained from {item.old.place} ({item.old.manifest.backbone_name}), {start} start"
    return PromptRecord(**values)
