"""Attention over packed positions on a CUDA device, by FlexAttention: a block mask says which 128 positions see any of which
other 128, so no mask of all pairs is made, and a prompt that many rows share is read where it lies.

Letters: S packed positions, Q computed ones among them (the last), A query heads, G key/value heads, K head width,
R reach of a bias.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softprompt.backbones.engine.native.levels import in_force
from softprompt.backbones.engine.packing import Layout
from softprompt.batch import on_device

BLOCK = 128
_COMPILER = "inductor"
_FORMS = 64

Sees = Callable[[Any, Any, Tensor, Tensor], Tensor]
"""(batch, head, query, key) -> whether the key is seen; places are int tensors that broadcast."""
Span = tuple[int, int, int, int]
"""First query and the one behind the last, first key and the one behind the last."""


def block_mask(spans: Iterable[Span], sees: Sees, queries: int, keys: int, device: torch.device) -> Any:
    """A BlockMask of [Q, S].

    Args:
        spans: outside which nothing is seen.
        sees: who sees whom within them.
        queries: Q.
        keys: S.
        device: of its tensors.
    """
    from torch.nn.attention.flex_attention import BlockMask

    table = np.zeros((-(-queries // BLOCK), -(-keys // BLOCK)), dtype=bool)
    for q_first, q_end, k_first, k_end in spans:
        if q_end > q_first and k_end > k_first:
            table[q_first // BLOCK : (q_end - 1) // BLOCK + 1, k_first // BLOCK : (k_end - 1) // BLOCK + 1] = True
    order = np.argsort(~table, axis=1, kind="stable")

    def moved(x: np.ndarray[Any, Any]) -> Tensor:
        return on_device(torch.from_numpy(x.astype(np.int32)), device)[None, None]

    return BlockMask.from_kv_blocks(
        moved(table.sum(1)), moved(order), BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(queries, keys)
    )


def rows_mask(layout: Layout) -> Any:
    """Every position sees its own row; made once a layout."""
    kept = layout.__dict__.get("_rows_mask")
    if kept is None:
        row_S = layout.row32_S

        def sees(batch: Any, head: Any, query: Tensor, key: Tensor) -> Tensor:
            return row_S[query] == row_S[key]

        ends = np.cumsum(layout.lengths)
        spans = [(int(e) - n, int(e), int(e) - n, int(e)) for n, e in zip(layout.lengths, ends, strict=True)]
        kept = block_mask(spans, sees, layout.total, layout.total, layout.device)
        layout.__dict__["_rows_mask"] = kept
    return kept


def attend_blocks(
    q_QAK: Tensor, k_SGK: Tensor, v_SGK: Tensor, mask: Any, scale: float, *, reach_AR: Tensor | None = None,
    softcap: float | None = None,
) -> Tensor:  # fmt: skip
    """Attention of the computed positions, [Q, A, K].

    Args:
        q_QAK: queries.
        k_SGK: keys; A / G query heads share one.
        v_SGK: values.
        mask: of `rows_mask` or `tree.tree_mask`.
        scale: factor on the scores.
        reach_AR: [A, 2R - 1], the bias of key k for query q of the same row at k - q + R - 1; None for none.
        softcap: scores become softcap * tanh(score / softcap); None for plain ones.
    """
    device = q_QAK.device
    scale_ = number_on(scale, device)

    def scored(score: Tensor, batch: Any, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score * scale_

    changed = scored
    if reach_AR is not None:
        middle, last = (number_on(end, device) for end in ((reach_AR.shape[1] - 1) // 2, reach_AR.shape[1] - 1))

        def biased(score: Tensor, batch: Any, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            # Positions of other rows lie at any distance; the mask hides them.
            place = torch.minimum((key - query + middle).clamp(min=0), last)
            return score * scale_ + reach_AR[head, place]

        changed = biased
    elif softcap is not None:
        cap = number_on(softcap, device)

        def capped(score: Tensor, batch: Any, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return cap * torch.tanh(score * scale_ / cap)

        changed = capped
    q, k, v = (x.transpose(0, 1)[None] for x in (q_QAK, k_SGK, v_SGK))
    grouped = q_QAK.shape[1] != k_SGK.shape[1]
    out = _compiled(_COMPILER)(q, k, v, score_mod=changed, block_mask=mask, scale=1.0, enable_gqa=grouped)
    return out[0].transpose(0, 1)


@lru_cache(maxsize=256)
def number_on(value: float, device: torch.device) -> Tensor:
    """A number as a scalar tensor, int32 or float32, shape (): a Python number that changes is compiled anew, or cannot be compiled at all."""
    return torch.full((), value, dtype=torch.int32 if isinstance(value, int) else torch.float32, device=device)


@lru_cache(maxsize=4)
def _compiled(compiler: str) -> Callable[..., Tensor]:
    from torch._dynamo import config
    from torch.nn.attention.flex_attention import flex_attention

    made = torch.compile(flex_attention, backend=compiler, dynamic=True, fullgraph=True)

    def call(*arguments: Any, **how: Any) -> Tensor:
        # Beyond eight forms (windows, caps, with and without gradients) PyTorch would score all pairs, without a word.
        with config.patch(recompile_limit=_FORMS):
            return made(*arguments, **how)

    return call


@lru_cache(maxsize=32)
def flexes(device: torch.device, dtype: torch.dtype, width: int, heads: int, groups: int) -> bool:
    """Whether a device runs FlexAttention for such heads and it gives what plain formulas give, forward and backward.

    Asked once: a small tree and biased rows are computed both ways. ``SOFTPROMPT_KERNELS=torch`` says no.
    """
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16) or in_force().name == "torch":
        return False
    try:
        return agrees(device, dtype, width, heads, groups)
    except Exception:  # whatever a compiler or a driver raises, the padded path goes on
        return False


def agrees(device: torch.device, dtype: torch.dtype, width: int, heads: int, groups: int) -> bool:
    """Whether attention over blocks is that over all pairs on a device, to a few roundings of the dtype."""
    draw = torch.Generator().manual_seed(0)
    layout = Layout((140, 30, 9, 90), device)
    row_S, place_S, total = layout.row32_S, torch.arange(layout.total, device=device), layout.total

    def behind_first(batch: Any, head: Any, query: Tensor, key: Tensor) -> Tensor:
        return ((row_S[key] == row_S[query]) | (row_S[key] == 0)) & (place_S[key] <= place_S[query])

    shared = block_mask([(0, total, 0, total)], behind_first, total, total, device)
    reach_AR = torch.randn(heads, 2 * layout.longest - 1, generator=draw).to(device)
    qkv = torch.randn(total, heads + 2 * groups, width, generator=draw).to(device, dtype)
    weight = torch.randn(total, heads, width, generator=draw).to(device)
    # T5's heads have keys of their own: where groups share them, there is no bias.
    cases = [(shared, None), *([(rows_mask(layout), reach_AR)] if heads == groups else [])]
    for mask, reach in cases:
        found = []
        for blocks in (True, False):
            leaf = qkv.clone().requires_grad_()
            q, k, v = leaf[:, :heads], leaf[:, heads : heads + groups], leaf[:, heads + groups :]
            with torch.enable_grad():
                if blocks:
                    out = attend_blocks(q, k, v, mask, width**-0.5, reach_AR=reach)
                else:
                    out = _over_all_pairs(q, k, v, mask.mask_mod, width**-0.5, reach)
                (slope,) = torch.autograd.grad((out.float() * weight).sum(), leaf)
            found.append((out.detach().float(), slope.float()))
        if not all(torch.allclose(mine, other, rtol=0.05, atol=0.05) for mine, other in zip(*found, strict=True)):
            return False
    return True


def _over_all_pairs(q: Tensor, k: Tensor, v: Tensor, sees: Sees, scale: float, reach_AR: Tensor | None) -> Tensor:
    """The plain formula in float32, [S, A, K]."""
    place = torch.arange(q.shape[0], device=q.device)
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1).float() for x in (k, v))
    scores = torch.einsum("qak,sak->aqs", q.float(), k) * scale
    if reach_AR is not None:
        index = place[None, :] - place[:, None] + (reach_AR.shape[1] - 1) // 2
        scores = scores + reach_AR[:, index.clamp(0, reach_AR.shape[1] - 1)]
    seen = sees(0, 0, place[:, None], place[None, :])
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return torch.einsum("aqs,sak->qak", weights, v).to(q.dtype)
