"""The ledger of a study: one atomic folder a finished cell, shared by studies, processes and machines.

    ledger.json                     format and the backbone all cells belong to
    cells/<kind>/<key>/cell.json    identity, result and provenance of a finished cell
                      /tensors.safetensors
    packs/<key>/                    a training on its way: its members and its run directory
    studies/<name>/                 the study's resolved settings, plan and contamination
    lock, lock.json                 who is at work

A cell's key is the sha256 of everything its result depends on. The first writer of a key wins; a second result for it
(a worker that was thought lost) is dropped, so that there is exactly one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt import artifacts
from softprompt.errors import CorruptArtifactError, IncompatibleBackboneError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
_CELL = {"kind", "key", "identity", "result", "provenance", "sha256"}
FOREIGN_LOCK_S = 300.0
"""A lock of another machine whose owner has not said anything for this many seconds is taken over."""


def key_of(identity: Mapping[str, Any]) -> str:
    """The sha256 (hex) of an identity: JSON with sorted keys, no spaces."""
    plain = artifacts.parse_json(artifacts.json_bytes(dict(identity)), "identity")
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return artifacts.sha256_bytes(text.encode())


def _age_s(note: Path, beside: int) -> float:
    """How long ago a note was written, by the clock of the file system: those of two machines may be hours apart.

    Args:
        note: the note.
        beside: an open file of the same folder, which is touched.
    """
    try:
        os.utime(beside)
        return os.fstat(beside).st_mtime - note.stat().st_mtime
    except FileNotFoundError:  # its owner ended in this moment
        return FOREIGN_LOCK_S


@dataclass(frozen=True, kw_only=True)
class Record:
    """A finished cell.

    Attributes:
        key: sha256 of its identity.
        kind: of cell.
        identity: everything its result depends on.
        result: plain JSON.
        provenance: who made it, when, how: study, command, host, seconds.
    """

    key: str
    kind: str
    identity: Mapping[str, Any]
    result: Mapping[str, Any]
    provenance: Mapping[str, Any]


class Ledger:
    """A ledger folder; reading needs no lock.

    Args:
        folder: made when something is first written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._purpose = ""
        self._started = 0.0

    # -- the ledger as a whole ----------------------------------------------------------------------------------------

    def claim(self, backbone: str, fingerprint: str) -> None:
        """Bind the ledger to a backbone, or check that it is bound to this one.

        Raises:
            IncompatibleBackboneError: its cells belong to another backbone.
            CorruptArtifactError: ``ledger.json`` is not readable.
        """
        path = self.folder / "ledger.json"
        if not path.exists():
            artifacts.write_json(path, {"format": FORMAT, "backbone": backbone, "fingerprint": fingerprint})
            return
        found = artifacts.read_json(path)
        if (
            not isinstance(found, dict)
            or found.get("format") != FORMAT
            or not isinstance(found.get("fingerprint"), str)
        ):
            raise CorruptArtifactError(
                f"{path} is not a ledger of format {FORMAT}: use another folder or a newer version."
            )
        if found["fingerprint"] != fingerprint:
            raise IncompatibleBackboneError(
                f"ledger {self.folder} holds cells of backbone '{found.get('backbone')}' ({found['fingerprint'][:12]}); "
                f"this study uses '{backbone}' ({fingerprint[:12]}). Results of two backbones do not mix: give the "
                "study a ledger folder of its own."
            )

    @contextlib.contextmanager
    def lock(self, purpose: str) -> Iterator[None]:
        """Hold the ledger alone while cells are made.

        The system frees the lock of a process that died, however it died. On file systems without locks across
        machines the note beside it is renewed while work goes on (`renew`); a silent one is taken over.

        Raises:
            UsageError: another run is at work; says who and since when.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / "lock.json"
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise self._busy(note) from error
            held = self._note(note)
            foreign = held and held.get("host") != socket.gethostname()
            if foreign and _age_s(note, descriptor) < FOREIGN_LOCK_S:
                raise self._busy(note)
            self._purpose = purpose
            self._started = time.time()
            self.renew()
            try:
                yield
            finally:
                note.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def renew(self) -> None:
        """Say that the owner of the lock is still at work."""
        record = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "purpose": self._purpose,
            "started": self._started,
            "renewed": time.time(),
        }
        artifacts.write_json(self.folder / "lock.json", record, durable=False)

    def _note(self, path: Path) -> dict[str, Any]:
        with contextlib.suppress(Exception):  # a note is for people; without it the lock still holds
            found = artifacts.read_json(path)
            return found if isinstance(found, dict) else {}
        return {}

    def _busy(self, path: Path) -> UsageError:
        who = self._note(path)
        try:
            since = time.strftime("%H:%M:%S", time.localtime(who["started"]))
        except (KeyError, TypeError, ValueError, OverflowError):
            since = "an unknown time"
        return UsageError(
            f"ledger {self.folder} is in use: process {who.get('pid', '?')} on {who.get('host', '?')} has been at work on "
            f"{who.get('purpose', 'a study')} since {since}. Wait for it, stop it, or use another ledger folder."
        )

    # -- cells --------------------------------------------------------------------------------------------------------

    def path(self, kind: str, key: str) -> Path:
        """Where a cell's folder is, or will be."""
        return self.folder / "cells" / artifacts.check_name(kind, "cell kind") / artifacts.check_name(key, "cell key")

    def has(self, kind: str, key: str) -> bool:
        """Whether a cell is finished."""
        return self.path(kind, key).is_dir()

    def keys(self, kind: str) -> set[str]:
        """The keys of all finished cells of a kind."""
        folder = self.folder / "cells" / kind
        if not folder.is_dir():
            return set()
        return {entry.name for entry in os.scandir(folder) if not entry.name.startswith(artifacts.TEMPORARY_PREFIX)}

    def kinds(self) -> list[str]:
        """The kinds of which there are cells."""
        folder = self.folder / "cells"
        return sorted(entry.name for entry in os.scandir(folder)) if folder.is_dir() else []

    def write(
        self,
        kind: str,
        key: str,
        identity: Mapping[str, Any],
        result: Mapping[str, Any],
        tensors: Mapping[str, Tensor] | None = None,
        provenance: Mapping[str, Any] | None = None,
        *,
        files: Mapping[str, bytes] | None = None,
    ) -> bool:
        """Record a finished cell, complete or not at all.

        Args:
            kind: of cell.
            key: `key_of` the identity.
            identity: everything the result depends on.
            result: plain JSON.
            tensors: what it gave, of any shape, if any.
            provenance: who made it.
            files: further files by relative name.

        Returns:
            False where the cell was finished already: the first result stays, this one is dropped.

        Raises:
            UsageError: the key is not that of the identity.
            StorageError: the disk is full or not writable; nothing half-written is left.
        """
        if key != key_of(identity):
            raise UsageError(f"cell key {key[:12]} is not that of its identity: it was not recorded.")
        files = dict(files or {})
        if tensors:
            files["tensors.safetensors"] = artifacts.tensor_bytes(tensors)
        hashes = {name: artifacts.sha256_bytes(data) for name, data in files.items()}
        record = {
            "kind": kind,
            "key": key,
            "identity": dict(identity),
            "result": dict(result),
            "provenance": dict(provenance or {}),
            "sha256": hashes,
        }
        files["cell.json"] = artifacts.json_bytes(record, sealed=True)
        path = self.path(kind, key)
        try:
            artifacts.write_folder(path, files)
        except UsageError:
            if path.is_dir():
                return False
            raise
        return True

    def read(self, kind: str, key: str) -> Record:
        """A finished cell.

        Raises:
            CorruptArtifactError: it is not what was written; says which folder to delete for it to be done again.
            UsageError: it is not finished.
        """
        path = self.path(kind, key)
        if not path.is_dir():
            raise UsageError(f"cell {kind}/{key[:12]} of ledger {self.folder} is not finished: run the study first.")
        try:
            data = artifacts.read_json(path / "cell.json")
            if not data.keys() <= _CELL:
                raise CorruptArtifactError(f"{path} holds more than a cell does.")
            record = Record(
                key=data["key"],
                kind=data["kind"],
                identity=data["identity"],
                result=data["result"],
                provenance=data["provenance"],
            )
            intact = record.key == key == key_of(record.identity)
        except (CorruptArtifactError, UsageError, KeyError, TypeError, AttributeError) as error:
            raise self._corrupt(path) from error
        if not intact:
            raise self._corrupt(path)
        return record

    def tensors(self, kind: str, key: str) -> dict[str, Tensor]:
        """The tensors of a finished cell, in the shapes they were written in, compared with the digest that was written.

        Raises:
            CorruptArtifactError: they are not what was written.
        """
        path = self.path(kind, key)
        try:
            sha256 = str(artifacts.read_json(path / "cell.json")["sha256"]["tensors.safetensors"])
            return artifacts.read_tensors(path / "tensors.safetensors", sha256=sha256)
        except (CorruptArtifactError, UsageError, KeyError, TypeError) as error:
            raise self._corrupt(path) from error

    def _corrupt(self, path: Path) -> CorruptArtifactError:
        return CorruptArtifactError(
            f"cell {path} is not what was written: delete that folder and its cell is done again."
        )

    # -- notes of studies ---------------------------------------------------------------------------------------------

    def note(self, study: str, name: str, value: Any) -> None:
        """Write ``studies/<study>/<name>.json``."""
        artifacts.write_json(self.folder / "studies" / artifacts.check_name(study) / f"{name}.json", value)

    def noted(self, study: str, name: str) -> Any:
        """Read it back; None where there is none."""
        path = self.folder / "studies" / artifacts.check_name(study) / f"{name}.json"
        return artifacts.read_json(path) if path.exists() else None

    def studies(self) -> list[str]:
        """Studies that were run here."""
        folder = self.folder / "studies"
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()) if folder.is_dir() else []
