"""Derived indexes of a library, so that 100,000 prompts are quick to list and search. Never the truth: the folders are.

Two caches lie in the library's hidden ``.index`` folder (for URLs, in the user's cache folder): ``facts.json``, the
headline of every manifest, and one `VectorTable` per width and metric. Each entry carries the version of the folder it
came from; what is new or changed is read from its folder, what is gone is dropped. Writers never touch the caches, so
no writer can lose another one's prompt through them; whoever reads may rewrite them, the last one wins, and all are right.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softprompt import artifacts, waits
from softprompt.errors import SoftpromptError, one_line
from softprompt.library.folders import Folders
from softprompt.library.manifest import Manifest
from softprompt.library.metric import Metric
from softprompt.library.reading import read_manifest, read_steadily, read_task_vectors
from softprompt.library.vectors import VectorTable, try_open

_FORMAT = "softprompt-facts/1"
_REWRITE_SHARE = 0.05  # a cache is rewritten when more than this share of it is out of date ...
_REWRITE_COUNT = 256  # ... or than this many prompts


@dataclass(frozen=True, slots=True)
class Entry:
    """What a listing shows of a prompt; see `Manifest` for the fields (``train_rows`` stands in its recipe)."""

    name: str
    task: str
    seed: int
    backbone_name: str
    backbone_fingerprint: str | None
    backbone_kind: str
    width: int
    prompt_length: int
    score: float | None
    steps: int | None
    embedding_step: int | None
    has_task_embedding: bool
    mean_row_norm: float | None
    licence: str
    tags: tuple[str, ...]
    origin: str
    created: str
    train_rows: int | None

    def __repr__(self) -> str:
        score = "" if self.score is None else f", score {self.score:.1f}"
        return one_line(f"<Entry {self.name}: {self.prompt_length} tokens on {self.backbone_name}{score}>")

    @property
    def verified(self) -> bool:
        """Whether the backbone it was made on is known by its fingerprint."""
        return self.backbone_fingerprint is not None

    @classmethod
    def of(cls, manifest: Manifest) -> Entry:
        """The headline of a manifest."""
        own = {f.name: getattr(manifest, f.name) for f in fields(cls) if f.name not in ("mean_row_norm", "train_rows")}
        rows = manifest.recipe.get("train_rows")
        return cls(
            **own,
            mean_row_norm=manifest.facts.get("mean_row_norm"),
            train_rows=rows if isinstance(rows, int) and rows > 0 else None,
        )


_FIELDS = tuple(f.name for f in fields(Entry))
_TAGS = _FIELDS.index("tags")


class LibraryIndex:
    """The listing and the vectors of a library's folders, kept current at each call.

    Attributes:
        problems: by prompt name, why a folder present could not be listed or searched; filled by the calls.
    """

    def __init__(self, folders: Folders) -> None:
        self.folders = folders
        self.problems: dict[str, str] = {}
        self._facts: dict[str, tuple[str, Entry]] | None = None
        self._present: dict[str, str] | None = None
        self._found: dict[tuple[int, Metric], list[tuple[VectorTable, list[int]]]] = {}
        # By width and metric: the table on the disk, and what was read since and is not worth a rewrite yet.
        self._tables: dict[tuple[int, Metric], tuple[VectorTable | None, VectorTable | None]] = {}

    # Facts -----------------------------------------------------------------------------------------------------------

    def entries(self) -> dict[str, Entry]:
        """The headline of every readable prompt, by name, in order of names."""
        return {name: entry for name, (_, entry) in self._current().items()}

    def _current(self) -> dict[str, tuple[str, Entry]]:
        if self._facts is None:
            self._facts = self._load_facts()
        known = self._facts
        present = self.folders.scan()
        if present is self._present:
            return known
        self.problems = {}
        current: dict[str, tuple[str, Entry]] = {}
        changed = [name for name, version in present.items() if name not in known or known[name][0] != version]
        read = {name: self._read_entry(name) for name in waits.each("reading prompts", sorted(changed))}
        for name in sorted(present):
            entry = read[name] if name in read else known[name][1]
            if entry is not None:
                current[name] = (present[name], entry)
        fresh = sum(entry is not None for entry in read.values())
        stale = sum(1 for name in known if name not in current)
        self._facts, self._present = current, present
        self._found.clear()
        if _worth_rewriting(fresh + stale, len(current)):
            self._save_facts(current)
        return current

    def _read_entry(self, name: str) -> Entry | None:
        try:
            artifacts.check_name(name)
            manifest = read_manifest(self.folders, name)
        except SoftpromptError as error:
            if self.folders.exists(name):  # otherwise it was removed in between
                self.problems[name] = str(error)
            return None
        return Entry.of(manifest)

    def _load_facts(self) -> dict[str, tuple[str, Entry]]:
        try:
            stored = artifacts.read_json(self.folders.index_folder / "facts.json")
            if stored["format"] != _FORMAT or tuple(stored["fields"]) != _FIELDS:
                return {}
            rows: list[list[Any]] = stored["rows"]
            for row in rows:
                row[_TAGS + 1] = tuple(row[_TAGS + 1])
            return {row[1]: (row[0], Entry(*row[1:])) for row in rows}
        except (SoftpromptError, KeyError, TypeError, IndexError):
            return {}

    def _save_facts(self, current: Mapping[str, tuple[str, Entry]]) -> None:
        rows = [[version, *(getattr(entry, field) for field in _FIELDS)] for version, entry in current.values()]
        content = json.dumps({"format": _FORMAT, "fields": _FIELDS, "rows": rows}).encode()
        with contextlib.suppress(SoftpromptError):  # a library that cannot be written is still read
            artifacts.write_bytes(self.folders.index_folder / "facts.json", content, durable=False)

    # Vectors ---------------------------------------------------------------------------------------------------------

    def tables(self, width: int, metric: Metric) -> tuple[dict[str, Entry], list[tuple[VectorTable, list[int]]]]:
        """The entries, and the vector tables that hold all prompts of a width, each with the rows that are current."""
        current = self._current()
        entries = {name: entry for name, (_, entry) in current.items()}
        if (width, metric) in self._found:
            return entries, self._found[width, metric]
        versions = {name: version for name, (version, entry) in current.items() if entry.width == width}
        stored, overlay = self._tables.get((width, metric)) or (self._open(width, metric), None)
        stored_rows = _current_rows(stored, versions)
        overlay_rows = _current_rows(overlay, versions)
        held = {
            table.names[row]
            for table, rows in ((stored, stored_rows), (overlay, overlay_rows))
            if table
            for row in rows
        }
        fresh = self._read_vectors(
            sorted(versions.keys() - held),
            versions,
            metric,
            stored.centre_H if stored else overlay.centre_H if overlay else None,
        )
        if overlay is not None and len(overlay_rows) < len(overlay):
            overlay = overlay.select(overlay_rows) if overlay_rows else None
        if fresh is not None:
            overlay = fresh if overlay is None else overlay.joined(fresh)
        stale = len(stored) - len(stored_rows) if stored else 0
        if _worth_rewriting(stale + (len(overlay) if overlay else 0), len(versions)):
            saved = self._save_table(width, metric, stored, stored_rows, overlay)
            if saved is not None:
                stored, stored_rows, overlay = saved, list(range(len(saved))), None
        self._tables[width, metric] = (stored, overlay)
        found = [(stored, stored_rows)] if stored else []
        if overlay is not None:
            found.append((overlay, list(range(len(overlay)))))
        self._found[width, metric] = found
        return entries, found

    def _open(self, width: int, metric: Metric) -> VectorTable | None:
        table = try_open(self._table_folder(width, metric))
        return table if table is not None and table.width == width else None

    def _table_folder(self, width: int, metric: Metric) -> Path:
        return self.folders.index_folder / f"{metric}-{width}"

    def _read_vectors(
        self, names: Iterable[str], versions: Mapping[str, str], metric: Metric, centre_H: Tensor | None
    ) -> VectorTable | None:
        read: dict[str, Tensor] = {}
        for name in waits.each("reading task embeddings", sorted(names)):
            try:
                read[name] = read_steadily(self.folders, name, partial(read_task_vectors, self.folders))[metric]
            except SoftpromptError as error:
                if self.folders.exists(name):
                    self.problems[name] = str(error)
        if not read:
            return None
        return VectorTable.of(list(read), [versions[name] for name in read], torch.stack(list(read.values())), centre_H)

    def _save_table(
        self, width: int, metric: Metric, stored: VectorTable | None, rows: list[int], overlay: VectorTable | None
    ) -> VectorTable | None:
        """Write both as one table and map it; None where the place cannot be written."""
        folder = self._table_folder(width, metric)
        try:
            if stored is not None:
                stored.save(folder, also=overlay, keep=rows)
            elif overlay is not None:
                overlay.save(folder)
        except SoftpromptError:
            return None
        return self._open(width, metric)


def _current_rows(table: VectorTable | None, versions: Mapping[str, str]) -> list[int]:
    if table is None:
        return []
    pairs = zip(table.names, table.versions, strict=True)
    return [row for row, (name, version) in enumerate(pairs) if versions.get(name) == version]


def _worth_rewriting(changed: int, size: int) -> bool:
    return changed > max(_REWRITE_COUNT, _REWRITE_SHARE * size)
