"""Where a library's prompt folders lie: a local directory, or any fsspec URL (object stores, ``hf://``, ``memory://``).

On a disk a folder appears by rename, complete. Elsewhere its files are written first and its manifest last, and a
folder without a manifest is absent; on removal the manifest goes first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from softprompt import artifacts
from softprompt.errors import CorruptArtifactError, DataError, UsageError
from softprompt.library.record import MANIFEST

INDEX_FOLDER = ".index"
_SETTLED_NS = 2_000_000_000


class Folders(ABC):
    """Folders of files by prompt name; names were checked by the caller.

    Attributes:
        location: what the user asked for.
        index_folder: where derived indexes may be kept, on the local disk.
    """

    location: str
    index_folder: Path

    @abstractmethod
    def scan(self) -> dict[str, str]:
        """The names present, each with a version that changes when the folder is replaced; not to be changed."""

    @abstractmethod
    def version(self, name: str) -> str | None:
        """The version of one folder, as `scan` gives it; None where it is absent."""

    @abstractmethod
    def read(self, name: str, file: str) -> bytes:
        """The bytes of a file of a folder. Raises DataError where it is absent."""

    @abstractmethod
    def files(self, name: str) -> list[str]:
        """The paths of all files of a folder, relative to it, hidden ones too, sorted; empty where it is absent."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether a complete folder of this name is present."""

    @abstractmethod
    def write(self, name: str, files: Mapping[str, bytes], *, replace: bool) -> None:
        """Write a folder, its manifest last. Raises UsageError where it exists and ``replace`` is False."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a folder. Raises DataError where it is absent."""

    def show(self, name: str, file: str = "") -> str:
        """The place of a folder or file, for messages."""
        return "/".join(part for part in (self.location.rstrip("/"), name, file) if part)


class LocalFolders(Folders):
    """A directory on a disk, made when the first prompt is added."""

    def __init__(self, root: Path) -> None:
        if root.exists() and not root.is_dir():
            raise UsageError(f"{root} is a file; a library is a directory: name another place.")
        self.root = root
        self.location = str(root)
        self.index_folder = root / INDEX_FOLDER
        self._seen: tuple[tuple[int, int], dict[str, str]] | None = None

    def scan(self) -> dict[str, str]:
        found: dict[str, str] = {}
        try:
            now, before = time.time_ns(), os.stat(self.root)
            # Every addition, replacement and removal renames something in the directory and so changes its time.
            state = (before.st_mtime_ns, before.st_ino)
            if self._seen is not None and self._seen[0] == state:
                return self._seen[1]
            names = os.listdir(self.root)
        except FileNotFoundError:
            return found
        root = str(self.root)
        for name in names:
            if name[0] == ".":
                continue
            version = _file_version(f"{root}/{name}/{MANIFEST}")
            if version is not None:  # otherwise not a prompt folder
                found[name] = version
        # A directory changed a moment ago may change again without its (coarse) time showing it: look again next time.
        self._seen = (state, found) if now - before.st_mtime_ns > _SETTLED_NS else None
        return found

    def version(self, name: str) -> str | None:
        # A name with a slash is no prompt's; whether something stands at that place is nobody's business.
        return None if "/" in name else _file_version(f"{self.root}/{name}/{MANIFEST}")

    def read(self, name: str, file: str) -> bytes:
        artifacts.check_file_name(f"{name}/{file}")
        folder = f"{self.root}/{name}"
        path = f"{folder}/{file}"
        if "/" in file or os.path.islink(folder) or os.path.islink(path):  # following links is dear; few have any
            artifacts.inside(self.root, f"{name}/{file}")
        return artifacts.read_bytes(path)

    def files(self, name: str) -> list[str]:
        root = self.root / name
        walked = os.walk(root)  # links to folders are named, not followed
        found = [
            os.path.join(folder, file)
            for folder, folders, files in walked
            for file in (*files, *_links(folder, folders))
        ]
        return sorted(os.path.relpath(path, root) for path in found)

    def exists(self, name: str) -> bool:
        return (self.root / name / MANIFEST).is_file()

    def write(self, name: str, files: Mapping[str, bytes], *, replace: bool) -> None:
        artifacts.write_folder(self.root / name, files, replace=replace)

    def remove(self, name: str) -> None:
        if not (self.root / name).is_dir():
            raise DataError(f"{self.show(name)} does not exist; nothing was removed.")
        artifacts.remove_folder(self.root / name)


def _file_version(path: str) -> str | None:
    try:
        stat = os.stat(path)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None
    return f"{stat.st_mtime_ns:x}-{stat.st_ino:x}-{stat.st_size:x}"


def _links(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if os.path.islink(os.path.join(folder, name))]


class RemoteFolders(Folders):
    """A folder of an fsspec file system; needs that system's own fsspec plug-in.

    Args:
        url: such as ``s3://bucket/prompts`` or ``hf://user/repo``.
        filesystem: an fsspec file system to use instead of the one the URL names (for tests and own credentials).
    """

    def __init__(self, url: str, filesystem: Any = None) -> None:
        import fsspec

        try:
            found, root = fsspec.core.url_to_fs(url) if filesystem is None else (filesystem, url.split("://", 1)[-1])
        except (ImportError, ValueError) as error:
            raise UsageError(f"{url} cannot be opened as a library: {error}.") from error
        self.system: Any = found
        self.root: str = root.rstrip("/")
        self.location = url
        self.index_folder = artifacts.cache_folder("index", hashlib.sha256(url.encode()).hexdigest()[:16])

    def scan(self) -> dict[str, str]:
        self.system.invalidate_cache()
        try:
            listed = self.system.find(self.root, maxdepth=2, detail=True)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise DataError(f"{self.location} cannot be listed: {error}.") from error
        found = {}
        for path, info in listed.items():
            parts = path[len(self.root) :].strip("/").split("/")
            if len(parts) == 2 and parts[1] == MANIFEST and not parts[0].startswith("."):
                found[parts[0]] = _object_version(info)
        return found

    def version(self, name: str) -> str | None:
        self.system.invalidate_cache()
        try:
            return _object_version(self.system.info(self._path(name, MANIFEST)))
        except OSError:
            return None

    def read(self, name: str, file: str) -> bytes:
        try:
            data: bytes = self.system.cat_file(self._path(name, file))
        except OSError as error:
            raise DataError(f"{self.show(name, file)} cannot be read: {error}.") from error
        return data

    def files(self, name: str) -> list[str]:
        root = self._path(name)
        self.system.invalidate_cache()
        try:
            return sorted(path[len(root) :].strip("/") for path in self.system.find(root))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DataError(f"{self.show(name)} cannot be listed: {error}.") from error

    def exists(self, name: str) -> bool:
        self.system.invalidate_cache()
        return bool(self.system.exists(self._path(name, MANIFEST)))

    def write(self, name: str, files: Mapping[str, bytes], *, replace: bool) -> None:
        if self.exists(name):
            if not replace:
                raise UsageError(
                    f"{self.show(name)} already exists and was left as it is: choose another name or ask to replace it."
                )
            self.remove(name)
        manifest = files[MANIFEST]
        try:
            with contextlib.suppress(NotImplementedError, FileExistsError):
                self.system.makedirs(self._path(name), exist_ok=True)
            for file, data in files.items():
                if file != MANIFEST:
                    self.system.pipe_file(self._path(name, file), data)
            self.system.pipe_file(self._path(name, MANIFEST), manifest)
        except OSError as error:
            raise artifacts.StorageError(
                f"{self.show(name)} was not written: {error}; without its manifest it counts as absent, so try again."
            ) from error
        # Object stores cannot exclude another writer of the same name; what is kept must be what was sent.
        if any(self.read(name, file) != data for file, data in files.items()):
            raise CorruptArtifactError(
                f"{self.show(name)} was written by someone else at the same time; verify it, or add under another name."
            )

    def remove(self, name: str) -> None:
        folder = self._path(name)
        if not self.exists(name):
            raise DataError(f"{self.show(name)} does not exist; nothing was removed.")
        try:
            self.system.rm_file(self._path(name, MANIFEST))
            self.system.rm(folder, recursive=True)
        except FileNotFoundError:
            return  # a store without real folders: the last file took the folder with it
        except OSError as error:
            raise artifacts.StorageError(f"{self.show(name)} was not removed: {error}.") from error

    def _path(self, *parts: str) -> str:
        for part in parts:
            artifacts.check_file_name(part)
        return "/".join((self.root, *parts))


_VERSION_KEYS = (
    "size",
    "ETag",
    "etag",
    "mtime",
    "LastModified",
    "last_modified",
    "created",
    "generation",
    "blob_id",
    "oid",
)


def _object_version(info: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={info[key]}" for key in _VERSION_KEYS if info.get(key) is not None)


def open_folders(place: str | Path, filesystem: Any = None) -> Folders:
    """The folders at a path or URL; ``file://`` URLs and plain paths are local."""
    text = str(place)
    if "://" not in text:
        return LocalFolders(Path(text).expanduser())
    if text.startswith("file://") and filesystem is None:
        return LocalFolders(Path(text.removeprefix("file://")))
    return RemoteFolders(text, filesystem)
