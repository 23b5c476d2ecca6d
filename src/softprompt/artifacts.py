"""The only writer of state: atomic, fsynced, hashed files and folders; safetensors and JSON, never pickle.

A file or folder is written beside its target under a hidden temporary name, flushed to the disk, and renamed into
place. A reader therefore sees all of it or nothing; a writer killed at any moment leaves at most a hidden
``.tmp-...`` entry, which readers skip and `sweep` removes.

A full disk (or quota, or file-size limit) becomes one `StorageError`, after the temporary files were removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.errors import CorruptArtifactError, DataError, SoftpromptError, UsageError, printable

if TYPE_CHECKING:
    from torch import Tensor

TEMPORARY_PREFIX = ".tmp-"
_NAME = re.compile(r"[A-Za-z0-9_@][A-Za-z0-9_@+=,~-]{0,199}")
_FILE_PART = re.compile(r"[A-Za-z0-9_@][A-Za-z0-9_.@+=,~-]{0,199}")
_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file-size limit was met",
}
SEAL = "sha256_of_the_rest"
"""The key under which a JSON object holds the digest of everything else in it."""
_TENSOR_SEAL = "sha256"
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


class StorageError(SoftpromptError):
    """Something could not be written: the disk is full, read-only or not ours. Nothing half-written was left."""


def cache_folder(*parts: str) -> Path:
    """Where things that can be made again are kept: ``$SOFTPROMPT_CACHE``, or ``softprompt`` in the user's cache folder.

    Without a home that can be written to (a container that runs as a number) it is a folder for temporary files that is
    ours alone.
    """
    named = os.environ.get("SOFTPROMPT_CACHE")
    if named:
        return Path(named, *parts)
    try:
        usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "softprompt")
    except RuntimeError:  # no HOME, and no entry for this user
        usual = None
    if usual is None or not _can_be_made(usual):
        usual = _temporary_cache(tempfile.gettempdir())
    return usual.joinpath(*parts)


def _can_be_made(folder: Path) -> bool:
    """Whether a folder can be written to, or made by making its missing parents."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), None)
    return folder.is_absolute() and there is not None and there.is_dir() and os.access(there, os.W_OK | os.X_OK)


@lru_cache(maxsize=1)
def _temporary_cache(root: str) -> Path:
    """``softprompt-UID`` among the temporary files; a new name where somebody else holds or could write to that one."""
    folder = Path(root, f"softprompt-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    state = folder.lstat()
    if stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid() and not state.st_mode & 0o077:
        return folder
    return Path(tempfile.mkdtemp(prefix="softprompt-", dir=root))


# Names ---------------------------------------------------------------------------------------------------------------


def check_name(name: str, what: str = "name") -> str:
    """The name itself, if it is safe as one folder: letters, digits and ``_@+=,~-``, not hidden, no dot, at most 200.

    Dots are left out because PEFT adapter names cannot hold one.

    Raises:
        UsageError: the name could escape its folder or be misread.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(
            f"{what} {name!r} cannot be a folder here: use letters, digits and any of _@+=,~- "
            "(no dot, slash or space), starting with a letter, digit, _ or @, at most 200 characters."
        )
    return name


def check_file_name(name: str) -> str:
    """A relative file name such as ``manifest.json`` or ``state/model.safetensors`` that stays inside its folder.

    Raises:
        UsageError: a part is empty, hidden, ``..`` or holds an unusual character.
    """
    if not isinstance(name, str) or not all(_FILE_PART.fullmatch(part) for part in name.split("/")):
        raise UsageError(f"file name {name!r} does not stay inside its folder: use plain relative names without '..'.")
    return name


def inside(root: Path, name: str) -> Path:
    """``root / name`` after checking that it, links followed, lies inside ``root``.

    Raises:
        UsageError: it does not.
    """
    path = root / check_file_name(name)
    if not path.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"{path} leads out of {root} through a link; it was not opened.")
    return path


# Bytes ---------------------------------------------------------------------------------------------------------------


def sha256_bytes(data: bytes | memoryview) -> str:
    """Hex sha256 of some bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    """Hex sha256 of a file, read in pieces.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def json_bytes(value: Any, *, sealed: bool = False) -> bytes:
    """UTF-8 JSON, keys in the given order, two spaces of indent, a newline at the end.

    Numbers that are not finite become null: JSON has no other form for them. Paths become strings. Raises UsageError for half
    characters, which no file can hold.

    Args:
        value: what is written.
        sealed: whether a last entry ``sha256_of_the_rest`` is added to an object, which `read_json` compares and takes off.
    """
    plain = _plain(value)
    if sealed:
        plain = {**plain, SEAL: _seal_of(plain)}
    try:
        return (json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError as error:
        bad = printable(error.object[max(0, error.start - 20) : error.end])
        raise UsageError(f"half of a character ({bad!r}) cannot be written: give whole characters.") from None


def _seal_of(plain: Mapping[str, Any]) -> str:
    return sha256_bytes(json.dumps(plain, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogatepass"))


def _unsealed(value: Any, path: str | Path) -> Any:
    """A value without its seal, if it had one."""
    if not isinstance(value, dict) or SEAL not in value:
        return value
    rest = {key: item for key, item in value.items() if key != SEAL}
    if value[SEAL] != _seal_of(rest):
        raise CorruptArtifactError(
            f"{path} is not what was written: its own digest differs; restore it from a copy or make it again."
        )
    return rest


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(item) for item in value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # numpy and torch scalars
        return _plain(value.item())
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    raise TypeError(f"{type(value).__name__} has no JSON form")


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file. Tensors are copied to the CPU; shapes, dtypes and bits are kept.

    safetensors has no checksum, so the file's metadata holds one of each tensor, which every reading here compares.
    """
    from safetensors.torch import save

    # A clone each: safetensors refuses tensors that share storage.
    plain = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}
    # Sorted: the same tensors are the same bytes, whatever order they come in.
    seal = json.dumps({name: _digest_of(tensor) for name, tensor in plain.items()}, sort_keys=True)
    return save(plain, {**(metadata or {}), _TENSOR_SEAL: seal})


def _digest_of(tensor: Tensor) -> str:
    """sha256 of a tensor's dtype, shape and bytes."""
    import torch

    found = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    if tensor.numel():
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _check_seals(tensors: Mapping[str, Tensor], metadata: Any, path: str | Path) -> None:
    """Raises CorruptArtifactError where a file of ours holds a tensor that was not written into it."""
    if not isinstance(metadata, dict) or _TENSOR_SEAL not in metadata:
        return  # written by others, or before files of ours had digests
    seals = parse_json(str(metadata[_TENSOR_SEAL]).encode(), path)
    for name, tensor in tensors.items():
        if not isinstance(seals, dict) or seals.get(name) != _digest_of(tensor):
            raise CorruptArtifactError(
                f"{path} is not what was written: the digest of tensor {name!r} differs; restore it from a copy or make it "
                "again."
            )


# Writing -------------------------------------------------------------------------------------------------------------


def write_bytes(path: str | Path, data: bytes, *, durable: bool = True) -> str:
    """Write a file atomically and return its sha256. Parent folders are made.

    Args:
        path: target; what stands there is replaced at one instant.
        data: content.
        durable: whether to flush to the disk before the rename; False only for what can be derived again.

    Raises:
        StorageError: it could not be written; the target is as it was.
    """
    target = Path(path)
    temporary = target.parent / _temporary_name()
    with storage(target, len(data)):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _write_plain(temporary, data, durable)
            os.replace(temporary, target)
            if durable:
                _fsync_folder(target.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return sha256_bytes(data)


def write_json(path: str | Path, value: Any, *, durable: bool = True, sealed: bool = False) -> str:
    """Write a value as JSON (see `json_bytes`) atomically; returns the sha256."""
    return write_bytes(path, json_bytes(value, sealed=sealed), durable=durable)


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, *, durable: bool = True
) -> str:
    """Write tensors of any shape as one safetensors file atomically; returns the sha256."""
    return write_bytes(path, tensor_bytes(tensors, metadata), durable=durable)


def append_json_line(path: str | Path, value: Any, *, durable: bool = False) -> None:
    """Append one value as a line of JSON in a single write. `read_json_lines` forgives a torn last line.

    Raises:
        StorageError: it could not be written.
    """
    line = (json.dumps(_plain(value), ensure_ascii=False, allow_nan=False) + "\n").encode()
    target = Path(path)
    with storage(target, len(line)):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # a writer was killed mid-line: do not glue a good line to its remains
            os.write(descriptor, line)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_folder(
    target: str | Path, files: Mapping[str, bytes], *, replace: bool = False, durable: bool = True
) -> dict[str, str]:
    """Write a folder of files that appears complete, by one rename.

    Args:
        target: the folder; its parents are made.
        files: content by relative file name (``check_file_name``).
        replace: whether a folder that stands there is replaced (at one instant where the system can); otherwise
            it is left alone and an error is raised.
        durable: whether files and folders are flushed to the disk before the rename.

    Returns:
        the sha256 of each file.

    Raises:
        UsageError: the folder exists and ``replace`` is False, or a name is not safe.
        StorageError: it could not be written; the target is as it was.
    """
    for name in files:
        check_file_name(name)
    with new_folder(target, replace=replace, durable=durable, size=sum(map(len, files.values()))) as folder:
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _write_plain(folder / name, data, durable=False)  # flushed with the whole folder
    return {name: sha256_bytes(data) for name, data in files.items()}


@contextlib.contextmanager
def new_folder(target: str | Path, *, replace: bool = False, durable: bool = True, size: int = 0) -> Iterator[Path]:
    """A hidden folder to fill, which becomes ``target`` by one rename when the block ends well, and vanishes otherwise.

    For content too large for memory; see `write_folder` for the arguments and errors.

    Args:
        size: expected bytes, for the message where they do not fit.
    """
    target = Path(target)
    temporary = target.parent / _temporary_name()
    with storage(target, size):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            if durable:
                _fsync_tree(temporary)
            _place_folder(temporary, target, replace)
            if durable:
                _fsync_folder(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@dataclass
class NewFile:
    """A file on its way.

    Attributes:
        path: where it is written.
        name: what it is called in its folder when it is whole; set by whoever writes it.
    """

    path: Path
    name: str = ""


@contextlib.contextmanager
def new_file(folder: str | Path) -> Iterator[NewFile]:
    """A hidden file to fill, which gets the name it was given when the block ends well, and vanishes otherwise.

    For content that is too large for memory and can be made again: it is not flushed to the disk.
    """
    place = Path(folder)
    file = NewFile(place / _temporary_name())
    with storage(place, 0):
        try:
            place.mkdir(parents=True, exist_ok=True)
            yield file
            os.replace(file.path, place / check_file_name(file.name))
        finally:
            file.path.unlink(missing_ok=True)


def remove_folder(target: str | Path) -> None:
    """Remove a folder at one instant: it is renamed to a hidden name first, then deleted.

    Raises:
        StorageError: it could not be removed.
    """
    target = Path(target)
    aside = target.parent / _temporary_name()
    with storage(target, 0):
        os.rename(target, aside)
        _fsync_folder(target.parent)
        shutil.rmtree(aside, ignore_errors=True)


def sweep(folder: str | Path, *, older_than_s: float = 3600.0) -> int:
    """Delete what killed writers left behind in a folder; returns how many entries. Younger ones may still be in work."""
    count = 0
    now = time.time()
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(TEMPORARY_PREFIX):
                continue
            with contextlib.suppress(OSError):
                if now - entry.stat(follow_symlinks=False).st_mtime < older_than_s:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)
                count += 1
    return count


def _temporary_name() -> str:
    return f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(6)}"


def _write_plain(path: Path, data: bytes, durable: bool) -> None:
    with open(path, "xb") as stream:
        stream.write(data)
        stream.flush()
        if durable:
            os.fsync(stream.fileno())


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot flush a folder
            raise
    finally:
        os.close(descriptor)


def _fsync_tree(root: Path) -> None:
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            with open(os.path.join(folder, name), "rb") as stream:
                os.fsync(stream.fileno())
        _fsync_folder(Path(folder))


def _place_folder(temporary: Path, target: Path, replace: bool) -> None:
    try:
        os.rename(temporary, target)
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        if not replace:
            raise UsageError(
                f"{target} already exists and was left as it is: choose another name or ask to replace it."
            ) from error
    if not _exchange(temporary, target):  # afterwards the old content stands under the temporary name
        aside = target.parent / _temporary_name()
        os.rename(target, aside)
        try:
            os.rename(temporary, target)
        except OSError:
            os.rename(aside, target)  # what was there comes back
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths at one instant (Linux); False where the system cannot."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    result: int = call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return result == 0


@contextlib.contextmanager
def storage(target: Path, size: int = 0) -> Iterator[None]:
    """Turns what the system says about a failed write into one sentence.

    Raises:
        StorageError: the disk is full, read-only, broken or not ours.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageError(
                f"{target} ({size:,} bytes) was not written: {_FULL[error.errno]}{_free(target)}; free some space or "
                "choose another folder. Nothing half-written was left."
            ) from error
        raise StorageError(
            f"{target} was not written: {error.strerror or error}; check the path and its permissions."
        ) from error


def _free(target: Path) -> str:
    for folder in target.absolute().parents:
        with contextlib.suppress(OSError):
            return f" ({shutil.disk_usage(folder).free:,} bytes free)"
    return ""


# Reading -------------------------------------------------------------------------------------------------------------


def read_bytes(path: str | Path, *, sha256: str | None = None) -> bytes:
    """A file's bytes, compared with a digest where one is given.

    Raises:
        DataError: the file cannot be read.
        CorruptArtifactError: its bytes are not those that were written.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    check_sha256(data, sha256, path)
    return data


def check_sha256(data: bytes, sha256: str | None, path: str | Path) -> None:
    """Raises CorruptArtifactError when the bytes do not have the digest (None: not known, not checked)."""
    if sha256 is not None and (found := sha256_bytes(data)) != sha256:
        raise CorruptArtifactError(
            f"{path} is not what was written: its sha256 is {found[:12]}..., expected {sha256[:12]}...; "
            "restore it from a copy or make it again."
        )


def read_json(path: str | Path, *, sha256: str | None = None) -> Any:
    """The value of a JSON file; where it holds a digest of itself (see `json_bytes`), it is compared and left out.

    Raises:
        DataError: the file cannot be read.
        CorruptArtifactError: it is not JSON, or not what was written.
    """
    return _unsealed(parse_json(read_bytes(path, sha256=sha256), path), path)


def parse_json(data: bytes, path: str | Path) -> Any:
    """JSON bytes as a value; ``path`` is for the message.

    Raises:
        CorruptArtifactError: they are not JSON, hold NaN or infinity (which JSON has no form for) or a number beyond all floats
            (which would be read as infinity), or an object that gives one key twice (of which each reader would take another).
    """
    try:
        return json.loads(data, object_pairs_hook=_single_keys, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise CorruptArtifactError(
            f"{path} is not readable JSON ({error}); restore it from a copy or make it again."
        ) from error


def _single_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


def read_json_lines(path: str | Path) -> list[Any]:
    """The values of a JSON-lines file. A last line without its newline was torn by a killed writer and is left out.

    Raises:
        DataError: the file cannot be read.
        CorruptArtifactError: the file holds other lines that are not JSON.
    """
    lines = read_bytes(path).split(b"\n")
    values: list[Any] = []
    for number, line in enumerate(lines[:-1], start=1):
        if not line.strip():
            continue
        try:
            values.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            if number < len(lines) - 1 and _torn(line):
                continue  # remains of a killed writer, ended by the next append
            raise CorruptArtifactError(f"{path} line {number} is not JSON ({error}).") from error
    return values


def _torn(line: bytes) -> bool:
    return line.lstrip().startswith((b"{", b"[")) and not line.rstrip().endswith((b"}", b"]"))


def read_tensors(
    path: str | Path, names: Iterable[str] | None = None, *, sha256: str | None = None
) -> dict[str, Tensor]:
    """Tensors of a safetensors file, on the CPU, in the shapes and dtypes they were written in.

    Args:
        path: the file.
        names: which to read; all where None. Without ``sha256`` only these are read from the disk.
        sha256: the digest the file must have; None where it is not known.

    Raises:
        DataError: the file cannot be read.
        CorruptArtifactError: it is not safetensors, not what was written, or lacks a tensor asked for.
    """
    if names is None or sha256 is not None:
        tensors = parse_tensors(read_bytes(path, sha256=sha256), path)
        return tensors if names is None else _chosen(tensors, names, path)
    from safetensors import safe_open

    try:
        with safe_open(str(path), framework="pt") as stream:
            known = set(stream.keys())
            found = {name: stream.get_tensor(name) for name in names if name in known or _absent(name, path)}
            _check_seals(found, stream.metadata(), path)
            return found
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    except CorruptArtifactError:
        raise
    except Exception as error:  # safetensors raises its own error class and, for odd headers, several others
        raise _not_safetensors(path, error) from error


def parse_tensors(data: bytes, path: str | Path) -> dict[str, Tensor]:
    """Safetensors bytes as tensors on the CPU, in their stored shapes and dtypes; ``path`` is for the message.

    Raises:
        CorruptArtifactError: they are not safetensors.
    """
    from safetensors.torch import load

    try:
        tensors: dict[str, Tensor] = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except Exception as error:  # see read_tensors
        raise _not_safetensors(path, error) from error
    _check_seals(tensors, header.get("__metadata__"), path)
    return tensors


def _chosen(tensors: dict[str, Tensor], names: Iterable[str], path: str | Path) -> dict[str, Tensor]:
    return {name: tensors[name] for name in names if name in tensors or _absent(name, path)}


def _absent(name: str, path: str | Path) -> bool:
    raise CorruptArtifactError(f"{path} holds no tensor {name!r}; it is not the file that was asked for.")


def _not_safetensors(path: str | Path, error: Exception) -> CorruptArtifactError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CorruptArtifactError(f"{path} is not a readable safetensors file ({reason}); restore it or make it again.")
