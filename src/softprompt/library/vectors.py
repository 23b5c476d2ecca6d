"""Vectors of many prompts, searched by one matrix-vector product (no index structure: exact, and fast enough).

Letters: n prompts, H width.

A vector x is kept around the table's centre m as two bfloat16 numbers a coordinate, x - m = hi + lo: 4 H bytes a prompt
and metric, precise to about 2^-17. A query reads ``hi`` alone (2 H bytes a prompt: what bounds the time is memory), then
computes the best candidates anew from hi + lo. Centring matters: task embeddings of one backbone all point much the
same way, and bfloat16 has eight bits to tell them apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from softprompt.artifacts import new_folder, read_json
from softprompt.errors import CorruptArtifactError, SoftpromptError

_FORMAT = "softprompt-vectors/1"
_PIECE = 16_384
_MOST_CANDIDATES = 8192
_ROUNDING = 1.01 * 2.0**-9  # of a number to bfloat16, relative


@dataclass(frozen=True, kw_only=True)
class VectorTable:
    """Vectors of n prompts under one metric.

    Attributes:
        names: n prompt names.
        versions: n versions, of the stored prompts they were made from.
        hi_nH: bfloat16 [n, H].
        lo_nH: bfloat16 [n, H].
        centre_H: float32 [H].
        radius: the largest |hi|.
        rest: the largest |lo|.
    """

    names: Sequence[str]
    versions: Sequence[str]
    hi_nH: Tensor
    lo_nH: Tensor
    centre_H: Tensor
    radius: float
    rest: float

    @classmethod
    def of(
        cls, names: Sequence[str], versions: Sequence[str], vectors_nH: Tensor, centre_H: Tensor | None = None
    ) -> VectorTable:
        """A table in memory from float vectors [n, H]; the centre is their mean unless one is given."""
        vectors_nH = vectors_nH.to(torch.float32)
        centre_H = vectors_nH.mean(0) if centre_H is None else centre_H.to(torch.float32)
        hi_nH, lo_nH = split(vectors_nH, centre_H)
        return cls(
            names=names,
            versions=versions,
            hi_nH=hi_nH,
            lo_nH=lo_nH,
            centre_H=centre_H,
            radius=_largest(hi_nH),
            rest=_largest(lo_nH),
        )

    def __len__(self) -> int:
        return int(self.hi_nH.shape[0])

    @property
    def width(self) -> int:
        return int(self.hi_nH.shape[1])

    @property
    def bytes_per_prompt(self) -> int:
        """Bytes of numbers kept for one prompt."""
        return self.width * (self.hi_nH.element_size() + self.lo_nH.element_size())

    def query(self, vector_H: Tensor, top_k: int, keep_n: Tensor | None = None) -> list[tuple[int, float]]:
        """The rows with the largest dot products, best first, at most ``top_k``.

        The result is that of a full-precision scan unless more than 8,192 prompts lie within bfloat16's rounding of the
        last one returned.

        Args:
            vector_H: float [H].
            top_k: how many.
            keep_n: bool [n], rows that count; all where None.
        """
        count = len(self) if keep_n is None else int(keep_n.sum())
        top_k = min(top_k, count)
        if top_k < 1:
            return []
        query_H = vector_H.to(torch.float32)
        narrow_H = query_H.to(torch.bfloat16)
        rough_n = torch.mv(self.hi_nH, narrow_H).to(torch.float32)
        if keep_n is not None:
            rough_n.masked_fill_(~keep_n, -torch.inf)
        # What lo leaves out, and what rounding the query does, by Cauchy-Schwarz; rounding the result comes below.
        error = self.rest * float(query_H.norm()) + self.radius * float((query_H - narrow_H.to(torch.float32)).norm())
        candidates = min(count, max(4 * top_k, 256))
        while True:
            rough, rows = rough_n.topk(candidates)
            exact = self._rows(rows) @ query_H
            best, order = exact.topk(top_k)
            last = float(best[-1])
            if candidates >= min(count, _MOST_CANDIDATES) or float(rough[-1]) < last - error - _ROUNDING * (
                abs(last) + error
            ):
                break
            candidates = min(count, max(4 * candidates, _MOST_CANDIDATES // 4), _MOST_CANDIDATES)
        offset = float(self.centre_H @ query_H)
        return [(int(rows[i]), float(value) + offset) for i, value in zip(order, best, strict=True)]

    def _rows(self, rows: Tensor) -> Tensor:
        return self.hi_nH[rows].to(torch.float32) + self.lo_nH[rows].to(torch.float32)

    def select(self, rows: Sequence[int]) -> VectorTable:
        """A table of some rows, bits unchanged."""
        index = torch.tensor(rows, dtype=torch.int64)
        return VectorTable(
            names=[self.names[i] for i in rows],
            versions=[self.versions[i] for i in rows],
            hi_nH=self.hi_nH[index],
            lo_nH=self.lo_nH[index],
            centre_H=self.centre_H,
            radius=self.radius,
            rest=self.rest,
        )

    def joined(self, other: VectorTable) -> VectorTable:
        """This table followed by another one with the same centre, in memory."""
        return VectorTable(
            names=[*self.names, *other.names],
            versions=[*self.versions, *other.versions],
            hi_nH=torch.cat([self.hi_nH, other.hi_nH]),
            lo_nH=torch.cat([self.lo_nH, other.lo_nH]),
            centre_H=self.centre_H,
            radius=max(self.radius, other.radius),
            rest=max(self.rest, other.rest),
        )

    def save(self, folder: Path, also: VectorTable | None = None, keep: Sequence[int] | None = None) -> None:
        """Write the table (its rows ``keep``), followed by another one with the same centre, replacing what is there."""
        parts = [self if keep is None else self.select(keep)] + ([] if also is None else [also])
        write_table(
            folder,
            [name for part in parts for name in part.names],
            [version for part in parts for version in part.versions],
            ((part.hi_nH, part.lo_nH) for part in parts),
            self.centre_H,
        )

    @classmethod
    def open(cls, folder: Path) -> VectorTable:
        """A table from a folder, memory-mapped.

        Raises:
            SoftpromptError: it is absent, torn or of another format; such a table is derived again.
        """
        about = read_json(folder / "about.json")
        try:
            if about["format"] != _FORMAT:
                raise ValueError("another format")
            count, width = len(about["names"]), int(about["width"])
            radius, rest = float(about["radius"]), float(about["rest"])
            if len(about["versions"]) != count:
                raise ValueError("names and versions differ in number")
            centre_H = torch.tensor(about["centre"], dtype=torch.float32)
            hi_nH, lo_nH = (_mapped(folder / f"{part}.bf16", count, width) for part in ("hi", "lo"))
            names, versions = list(about["names"]), list(about["versions"])
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise CorruptArtifactError(f"{folder} is no vector table ({error}); it is derived again.") from error
        return cls(
            names=names, versions=versions, hi_nH=hi_nH, lo_nH=lo_nH, centre_H=centre_H, radius=radius, rest=rest
        )


def split(vectors_nH: Tensor, centre_H: Tensor) -> tuple[Tensor, Tensor]:
    """hi, lo (bfloat16 [n, H]) with hi + lo = vectors - centre to about 2^-17."""
    centred_nH = vectors_nH.to(torch.float32) - centre_H
    hi_nH = centred_nH.to(torch.bfloat16)
    return hi_nH, (centred_nH - hi_nH.to(torch.float32)).to(torch.bfloat16)


def _largest(rows_nH: Tensor) -> float:
    """The largest L2 norm of the rows."""
    starts = range(0, len(rows_nH), _PIECE)
    pieces = (rows_nH[first : first + _PIECE].to(torch.float32).norm(dim=1).max() for first in starts)
    return max((float(norm) for norm in pieces), default=0.0)


def write_table(
    folder: Path,
    names: Sequence[str],
    versions: Sequence[str],
    parts: Iterable[tuple[Tensor, Tensor]],
    centre_H: Tensor,
) -> None:
    """Write a table piece by piece: pairs of hi and lo, bfloat16 [., H], in the order of ``names``.

    Raises:
        StorageError: it could not be written.
    """
    radius = rest = 0.0
    with (
        new_folder(folder, replace=True, durable=False, size=4 * len(names) * len(centre_H)) as temporary,
        open(temporary / "hi.bf16", "wb") as hi_file,
        open(temporary / "lo.bf16", "wb") as lo_file,
    ):
        for hi_nH, lo_nH in parts:
            radius, rest = max(radius, _largest(hi_nH)), max(rest, _largest(lo_nH))
            hi_file.write(hi_nH.contiguous().view(torch.int16).numpy().data)
            lo_file.write(lo_nH.contiguous().view(torch.int16).numpy().data)
        about = {"format": _FORMAT, "width": len(centre_H), "radius": radius, "rest": rest, "centre": centre_H.tolist()}
        (temporary / "about.json").write_text(json.dumps({**about, "names": list(names), "versions": list(versions)}))


def _mapped(path: Path, count: int, width: int) -> Tensor:
    if path.stat().st_size != 2 * count * width:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, expected {2 * count * width}")
    if count == 0:
        return torch.zeros(0, width, dtype=torch.bfloat16)
    # Mode "c": pages are shared and private to us if written, which nobody does; torch warns of read-only memory.
    return torch.from_numpy(np.memmap(path, dtype=np.int16, mode="c", shape=(count, width))).view(torch.bfloat16)


def try_open(folder: Path) -> VectorTable | None:
    """The table of a folder, or None where there is no usable one."""
    try:
        return VectorTable.open(folder)
    except SoftpromptError:
        return None
