"""A batch for a decoder-only model as segments laid end to end: prompts once each, rows behind them, answers behind rows.

Letters: B rows, C candidate answers, U unique prompts, P prompt tokens, T input tokens, D target tokens, S packed
positions, R predicted tokens, H width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from softprompt.backbones.causal import nothing_to_score
from softprompt.backbones.engine.packing import Layout, pack
from softprompt.backbones.engine.tree import Tree
from softprompt.batch import PromptBatch, TokenBatch, on_device


@dataclass(frozen=True, eq=False)
class Laid:
    """Where everything is. Places count computed positions: those of given prompts are left out.

    Attributes:
        x_SH: input embeddings of the computed positions.
        tree: prompts, rows, answers, in this order.
        used: the unique prompts, in order; empty where rows carry their own.
        rows: numbers of the rows' segments.
        last_B: int64 [B], the position that predicts what follows a row's text; -1 where there is none.
        goal_B: int64 [B], where the row's targets begin.
        owner_C: int64 [C], the row of each answer.
        answer_C: int64 [C], where each answer begins.
        bare: some row has neither prompt nor text.
    """

    x_SH: Tensor
    tree: Tree
    used: tuple[int, ...]
    rows: range
    last_B: Tensor
    goal_B: Tensor
    owner_C: Tensor
    answer_C: Tensor
    bare: bool

    def check_scored(self) -> None:
        """Refuse rows with nothing before what is predicted."""
        if self.bare:
            raise nothing_to_score()

    @staticmethod
    def predictors(first_B: Tensor, start_B: Tensor, layout: Layout) -> Tensor:
        """int64 [R], the positions that predict tokens packed by ``layout``: the first of each row by ``first_B``, the
        others by the token before, the first of which stands at ``start_B``."""
        row_R, place_R = layout.row_S, layout.position_S
        return torch.where(place_R == 0, first_B[row_R], start_B[row_R] + place_R - 1)


def laid_out(
    embed: Callable[[Tensor], Tensor],
    dtype: torch.dtype,
    batch: TokenBatch,
    prompts: PromptBatch | None,
    *,
    targets: bool,
    answers: Sequence[Sequence[Sequence[int]]] = (),
    apart: bool = False,
    given: bool = False,
) -> Laid:
    """Lay a batch out.

    Args:
        embed: token ids [S] to input embeddings [S, H].
        dtype: of the embeddings.
        targets: rows go on with their targets (all but the last token, whose successor nobody asks for).
        answers: by row, candidate answers as token ids.
        apart: every row carries its own prompt instead of sharing it.
        given: prompts are only attended to.
    """
    device, count = batch.input_BT.device, batch.size
    which = [] if prompts is None else prompts.which_B.tolist()
    length_U = () if prompts is None else prompts.length_U
    used = () if apart else tuple(sorted(set(which)))
    own = [length_U[u] for u in which] if apart else [0] * count
    goal = [max(n - 1, 0) if targets else 0 for n in batch.target_lengths]
    flat = [list(answer) for row in answers for answer in row]
    owner = [b for b, row in enumerate(answers) for _ in row]
    rows = range(len(used), len(used) + count)
    lengths = [length_U[u] for u in used]
    lengths += [p + t + d for p, t, d in zip(own, batch.input_lengths, goal, strict=True)]
    lengths += [max(len(answer) - 1, 0) for answer in flat]
    behind = [used.index(u) for u in which] if used else [-1] * count
    parents = (*(-1 for _ in used), *behind, *(rows[b] for b in owner))
    tree = Tree(lengths=tuple(lengths), parents=parents, device=device, first=len(used) if given else 0)
    start = tree.layout.start_B - tree.given
    start_B = start[len(used) : len(used) + count]
    text_B = start_B + on_device(torch.tensor(own, dtype=torch.int64), device)
    goal_B = text_B + batch.input_length_B
    owner_C = on_device(torch.tensor(owner, dtype=torch.int64), device)
    answer_C = start[len(used) + count :]
    tokens = [_tokens(batch.input_BT, batch.input_lengths, text_B)]
    tokens += [_tokens(batch.target_BD, goal, goal_B)] if any(goal) else []
    tokens += [_candidates(flat, answer_C)] if flat else []
    x_SH = _embedded(embed, dtype, tokens, tree.layout.total - tree.given)
    before_B = torch.full_like(goal_B, -1)
    if prompts is not None and not given:
        copies, begins = (which, start_B) if apart else (list(used), start[: len(used)])
        x_SH = _with_prompts(x_SH, prompts, copies, begins)
    if used and not given:
        end = start[: len(used)] + tree.layout.length_B[: len(used)] - 1
        before_B = end[on_device(torch.tensor(behind), device)]
    return Laid(
        x_SH=x_SH,
        tree=tree,
        used=used,
        rows=rows,
        last_B=torch.where(goal_B > start_B, goal_B - 1, before_B),
        goal_B=goal_B,
        owner_C=owner_C,
        answer_C=answer_C,
        bare=any(not t and (not which or not length_U[which[b]]) for b, t in enumerate(batch.input_lengths)),
    )


def _embedded(
    embed: Callable[[Tensor], Tensor], dtype: torch.dtype, tokens: Sequence[tuple[Tensor, Tensor]], total: int
) -> Tensor:
    """Input embeddings [total, H] of ids at their places; the rest is left for prompts."""
    ids, places = (torch.cat(part) for part in zip(*tokens, strict=True))
    words = embed(ids).to(dtype)
    x_SH = words.new_empty(total, words.shape[1])
    x_SH[places] = words
    return x_SH


def _tokens(id_BT: Tensor, lengths: Sequence[int], start_B: Tensor) -> tuple[Tensor, Tensor]:
    """Packed ids of rows, and their places behind where each row's begin."""
    ids, layout = pack(id_BT, lengths)
    return ids, start_B[layout.row_S] + layout.position_S


def _candidates(answers: Sequence[Sequence[int]], start_C: Tensor) -> tuple[Tensor, Tensor]:
    """The same of candidate answers, all but their last tokens."""
    batch = TokenBatch.of([answer[:-1] for answer in answers], device=start_C.device)
    return _tokens(batch.input_BT, batch.input_lengths, start_C)


def _with_prompts(x_SH: Tensor, prompts: PromptBatch, copies: Sequence[int], start_C: Tensor) -> Tensor:
    """Embeddings with unique prompts at some places; gradients flow to the prompts."""
    unique_UPH = prompts.unique_UPH
    layout = Layout(tuple(prompts.length_U[u] for u in copies), x_SH.device)
    which = on_device(torch.tensor(list(copies), dtype=torch.int64), x_SH.device)
    source = which[layout.row_S] * unique_UPH.shape[1] + layout.position_S
    prompt_SH = unique_UPH.flatten(0, 1).index_select(0, source)
    return x_SH.index_copy(0, start_C[layout.row_S] + layout.position_S, prompt_SH.to(x_SH.dtype))
