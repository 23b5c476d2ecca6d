"""What a prompt says: the vocabulary tokens nearest to each of its rows, its norms, and how far it has moved.

Lester et al. 2021 (section 7) read prompts by their nearest neighbours under cosine. How much that tells is open; far
from the vocabulary (a small ``nearest`` similarity, a norm many times the vocabulary's) it tells little.

Letters: P prompt tokens, H width, V vocabulary, C a piece of the vocabulary.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from softprompt.backbones.base import Backbone
from softprompt.errors import IncompatibleBackboneError, UsageError
from softprompt.prompts.init import InitSettings, initial_prompt

_PIECE = 16_384  # vocabulary rows compared at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbour:
    """A vocabulary token near a prompt row.

    Attributes:
        token: as the tokenizer writes it.
        token_id: its id.
        cosine: similarity of its embedding and the row, -1..1.
    """

    token: str
    token_id: int
    cosine: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RowReading:
    """One row of a prompt.

    Attributes:
        position: 0-based.
        norm: its L2 norm.
        nearest: its nearest tokens by cosine, best first.
        distance_from_vocabulary: L2 distance to the closest embedding of the vocabulary.
        distance_from_initial: L2 distance to where the row started; None where that is not known.
    """

    position: int
    norm: float
    nearest: tuple[Neighbour, ...]
    distance_from_vocabulary: float
    distance_from_initial: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptReading:
    """What a prompt says, row by row, and in the mean over rows.

    Attributes:
        rows: P readings.
        mean_norm: mean L2 norm of the rows.
        vocabulary_norm: mean L2 norm of the vocabulary's embeddings, to compare with.
        mean_nearest_cosine: mean over rows of the best cosine.
        distance_from_vocabulary: mean over rows.
        distance_from_initial: mean over rows; None where the start is not known.
        text: the best token of each row, joined as the tokenizer would.
    """

    rows: tuple[RowReading, ...]
    mean_norm: float
    vocabulary_norm: float
    mean_nearest_cosine: float
    distance_from_vocabulary: float
    distance_from_initial: float | None
    text: str


def read_prompt(
    backbone: Backbone, prompt_PH: Tensor, *, initial_PH: Tensor | None = None, neighbours: int = 3
) -> PromptReading:
    """Read a prompt against its backbone's vocabulary.

    Args:
        backbone: gives the embeddings [V, H] and the tokenizer.
        prompt_PH: float [P, H].
        initial_PH: float [P, H], where it started (see `start_again`); None where not known.
        neighbours: tokens a row, at least 1.

    Raises:
        IncompatibleBackboneError: another width.
        UsageError: no neighbour was asked for, or the start has another shape.
    """
    _check_shapes(backbone, prompt_PH, initial_PH)
    table_VH = backbone.embedding_table().to("cpu")
    neighbours = min(neighbours, int(table_VH.shape[0]))
    if neighbours < 1:
        raise UsageError("at least one neighbour a row is needed to read a prompt.")
    rows_PH = prompt_PH.detach().to("cpu", torch.float32)
    cosine_PK, id_PK, distance_P = _nearest(rows_PH, table_VH, neighbours)
    moved_P = None if initial_PH is None else (rows_PH - initial_PH.detach().to("cpu", torch.float32)).norm(dim=1)
    norm_P = rows_PH.norm(dim=1)
    tokens = _tokens(backbone, id_PK)
    rows = tuple(
        RowReading(
            position=p,
            norm=float(norm_P[p]),
            nearest=tuple(
                Neighbour(token=tokens[p][k], token_id=int(id_PK[p, k]), cosine=float(cosine_PK[p, k]))
                for k in range(neighbours)
            ),
            distance_from_vocabulary=float(distance_P[p]),
            distance_from_initial=None if moved_P is None else float(moved_P[p]),
        )
        for p in range(rows_PH.shape[0])
    )
    return PromptReading(
        rows=rows,
        mean_norm=float(norm_P.mean()),
        vocabulary_norm=float(table_VH.norm(dim=1).mean()),
        mean_nearest_cosine=float(cosine_PK[:, 0].mean()),
        distance_from_vocabulary=float(distance_P.mean()),
        distance_from_initial=None if moved_P is None else float(moved_P.mean()),
        text=" ".join(str(row.nearest[0].token).lstrip("▁Ġ") for row in rows),
    )


def _check_shapes(backbone: Backbone, prompt_PH: Tensor, initial_PH: Tensor | None) -> None:
    if prompt_PH.dim() != 2 or prompt_PH.shape[1] != backbone.hidden_size:
        raise IncompatibleBackboneError(
            f"the prompt has shape {list(prompt_PH.shape)}; backbone {backbone.name} has width {backbone.hidden_size}. "
            "Read it with its own backbone."
        )
    if initial_PH is not None and initial_PH.shape != prompt_PH.shape:
        raise UsageError(
            f"the prompt is {list(prompt_PH.shape)} and its start {list(initial_PH.shape)}; they must be alike."
        )


def start_again(backbone: Backbone, init: Mapping[str, Any], prompt_length: int, seed: int) -> Tensor | None:
    """Where a prompt started, float32 [P, H], made again from what its manifest says of it.

    Args:
        backbone: the one it was tuned on.
        init: `softprompt.prompts.init.InitSettings.record`, as manifests keep it.
        prompt_length: P.
        seed: of its run.

    Returns:
        None where the record does not say enough: an import, or a start from another prompt.
    """
    settings = InitSettings.of_record(init)
    if settings is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # labels that did not fit were told when it was tuned
        return initial_prompt(backbone, settings, prompt_length, seed)


def _nearest(rows_PH: Tensor, table_VH: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Best cosines [P, K] with their ids [P, K], and the distance [P] to the closest embedding."""
    unit_PH = torch.nn.functional.normalize(rows_PH, dim=1)
    best_PK = torch.full((rows_PH.shape[0], 0), 0.0)
    id_PK = torch.zeros(rows_PH.shape[0], 0, dtype=torch.int64)
    closest_P = torch.full((rows_PH.shape[0],), torch.inf)
    for first, piece_CH in _pieces(table_VH):
        cosine_PC = unit_PH @ torch.nn.functional.normalize(piece_CH, dim=1).T
        here = torch.arange(first, first + piece_CH.shape[0]).expand(rows_PH.shape[0], -1)
        all_cosines, all_ids = torch.cat([best_PK, cosine_PC], 1), torch.cat([id_PK, here], 1)
        best_PK, place = all_cosines.topk(min(count, all_cosines.shape[1]), dim=1)
        id_PK = all_ids.gather(1, place)
        # Without the matrix-product shortcut, whose cancellation would show for rows that are vocabulary rows.
        distances = torch.cdist(rows_PH, piece_CH, compute_mode="donot_use_mm_for_euclid_dist")
        closest_P = torch.minimum(closest_P, distances.amin(1))
    return best_PK, id_PK, closest_P


def _pieces(table_VH: Tensor) -> Iterator[tuple[int, Tensor]]:
    for first in range(0, table_VH.shape[0], _PIECE):
        yield first, table_VH[first : first + _PIECE].to(torch.float32)


def _tokens(backbone: Backbone, id_PK: Tensor) -> list[list[str]]:
    known = len(backbone.tokenizer)  # a table may be padded beyond the tokenizer's ids
    return [
        [str(backbone.tokenizer.convert_ids_to_tokens(i)) if i < known else f"<id {i}>" for i in row]
        for row in id_PK.tolist()
    ]
