"""The prompt library: a directory (or URL) of prompt folders, each complete in itself; there is no shared index file.

    library = Library("prompts")
    library.add(PromptRecord(task="mnli", seed=0, prompt=prompt_PH, task_embedding=early_PH, ...))
    prompt_PH = library.load("mnli@0", backbone)          # refused on another backbone
    matches = search(library, [target_PH], top_k=5, backbone_fingerprint=backbone.fingerprint)

A folder is an exact PEFT adapter with a card, a manifest, a task embedding and its search vectors. Any number of
processes may add and remove at once. Nothing is read that is not asked for, and what is read is compared with its sha256.

Letters: P prompt tokens, H width.
"""

from __future__ import annotations

import builtins
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from softprompt import artifacts, waits
from softprompt.errors import (
    CorruptArtifactError,
    IncompatibleBackboneError,
    UnknownNameError,
    UsageError,
    one_line,
)
from softprompt.library.folders import Folders, LocalFolders, open_folders
from softprompt.library.formats.adapter import folder_files
from softprompt.library.index import Entry, LibraryIndex
from softprompt.library.manifest import Manifest
from softprompt.library.reading import (
    problems_of,
    read_checked,
    read_embedding,
    read_manifest,
    read_prompt,
    refuse_strange_files,
    steady,
)
from softprompt.library.record import MANIFEST, BackboneIdentity, PromptRecord
from softprompt.prompts.stack import PromptStack

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone

T = TypeVar("T")


class UnverifiedPromptWarning(UserWarning):
    """A prompt without a backbone fingerprint is being used."""


class StoredPrompt:
    """One prompt of a library. Its manifest was read; tensors are read when asked for.

    Where the prompt is replaced in between, the new one is read, and ``manifest`` becomes its own.

    Attributes:
        manifest: what is known of it.
    """

    def __init__(self, folders: Folders, manifest: Manifest) -> None:
        self._folders = folders
        self.manifest = manifest

    def __repr__(self) -> str:
        return one_line(f"<StoredPrompt {self.name} in {self._folders.location}>")

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def task(self) -> str:
        return self.manifest.task

    @property
    def place(self) -> str:
        """Its folder's path or URL."""
        return self._folders.show(self.name)

    def prompt(self) -> Tensor:
        """The soft prompt [P, H] in its stored dtype, on the CPU.

        Raises:
            CorruptArtifactError: not what was written.
        """
        return self._read(read_prompt)

    def task_embedding(self) -> Tensor:
        """The task embedding [P, H].

        Raises:
            UsageError: the prompt has none.
            CorruptArtifactError: not what was written.
        """
        if not self.manifest.has_task_embedding:
            raise UsageError(
                f"prompt {self.name!r} has no task embedding (imported?); compute one with 'softprompt embed', or search "
                "with the prompts themselves."
            )
        return self._read(read_embedding)

    def check_backbone(self, backbone: BackboneIdentity) -> bool:
        """Whether it is known to belong to the backbone; False for ``unverified`` ones, which fit in width.

        Raises:
            IncompatibleBackboneError: another backbone or width.
        """
        check_backbone(self.manifest, backbone)
        return self.manifest.verified

    def files(self) -> dict[str, bytes]:
        """All files of its folder, each compared with its digest, the manifest last.

        Raises:
            CorruptArtifactError: one is not what was written, or there are others.
        """

        def read(folders: Folders, manifest: Manifest) -> dict[str, bytes]:
            refuse_strange_files(folders, manifest)
            found = {file: read_checked(folders, manifest, file) for file in manifest.files}
            found[MANIFEST] = folders.read(manifest.name, MANIFEST)
            if Manifest.from_bytes(found[MANIFEST], folders.show(manifest.name, MANIFEST)) != manifest:
                raise CorruptArtifactError(f"{folders.show(manifest.name)} changed while it was read; read it again.")
            return found

        return self._read(read)

    def _read(self, read: Callable[[Folders, Manifest], T]) -> T:
        self.manifest, found = steady(self._folders, self.manifest, lambda manifest: read(self._folders, manifest))
        return found


def check_backbone(manifest: Manifest, backbone: BackboneIdentity) -> None:
    """Refuse a prompt that was made on another backbone.

    Raises:
        IncompatibleBackboneError: another fingerprint (weights, architecture or tokenizer) or another width.
    """
    known = manifest.backbone_fingerprint
    remedy = f"Prompts do not move between backbones: load {manifest.backbone_name} or retrain."
    if manifest.width != backbone.hidden_size:
        raise IncompatibleBackboneError(
            f"prompt {manifest.name!r} has width {manifest.width} ({manifest.backbone_name}); backbone {backbone.name} has "
            f"width {backbone.hidden_size}. {remedy}"
        )
    if known is not None and known != backbone.fingerprint:
        raise IncompatibleBackboneError(
            f"prompt {manifest.name!r} was made on {manifest.backbone_name} with fingerprint {known[:12]}; backbone "
            f"{backbone.name} has {backbone.fingerprint[:12]}: other weights, architecture or tokenizer. {remedy}"
        )


class Library:
    """A library of prompts.

    Args:
        place: a directory (made when the first prompt is added) or an fsspec URL (``hf://``, ``s3://``, ``memory://``).
        filesystem: an fsspec file system to use for a URL instead of the one it names.

    Example:
        >>> kept = sp.Library("kept")
        >>> kept.add(prompt)
        <StoredPrompt films@1 in ...>
        >>> kept.names(), kept.verify()
        (['films@1'], {})
        >>> sp.predict(backbone, kept.get("films@1"), "a lovely film", progress=False)[0].label in ("bad", "good")
        True
    """

    def __init__(self, place: str | Path, *, filesystem: Any = None) -> None:
        self.folders = open_folders(place, filesystem)
        self.index = LibraryIndex(self.folders)

    def __repr__(self) -> str:
        return one_line(f"<Library {self.location}>")

    @property
    def location(self) -> str:
        """The path or URL it was opened at."""
        return self.folders.location

    def __len__(self) -> int:
        return len(self.index.entries())

    def __contains__(self, name: str) -> bool:
        return self.folders.exists(artifacts.check_name(name, "prompt name"))

    def add(self, record: PromptRecord, *, replace: bool = False) -> StoredPrompt:
        """Add a prompt. When this returns, it is on the disk.

        Raises:
            UsageError: the name is taken and ``replace`` is False, or is not safe.
            StorageError: it could not be written; nothing half-written was left.
        """
        manifest, files = folder_files(record)
        self.folders.write(manifest.name, files, replace=replace)
        return StoredPrompt(self.folders, manifest)

    def copy_from(self, prompt: StoredPrompt, *, replace: bool = False) -> StoredPrompt:
        """Copy a prompt of another library, bytes unchanged.

        Raises:
            UsageError: the name is taken and ``replace`` is False.
            CorruptArtifactError: its files are not what was written.
        """
        self.folders.write(prompt.name, prompt.files(), replace=replace)
        return self.get(prompt.name)

    def get(self, name: str) -> StoredPrompt:
        """A prompt by name; only its manifest is read.

        Raises:
            UnknownNameError: there is none of that name.
            CorruptArtifactError: its manifest is not what was written.
        """
        artifacts.check_name(name, "prompt name")
        if not self.folders.exists(name):
            raise self._unknown(name)
        return StoredPrompt(self.folders, read_manifest(self.folders, name))

    def _unknown(self, name: str) -> UnknownNameError:
        return UnknownNameError(
            "prompt", name, self.folders.scan(), f"List them with: softprompt library ls {self.location}"
        )

    def load(self, name: str, backbone: BackboneIdentity) -> Tensor:
        """A prompt [P, H] for a backbone, in its stored dtype, on the CPU.

        A prompt without a fingerprint is given with an `UnverifiedPromptWarning`.

        Raises:
            UnknownNameError: there is none of that name.
            IncompatibleBackboneError: it was made on another backbone, or has another width.
            CorruptArtifactError: it is not what was written.
        """
        stored = self.get(name)
        if not stored.check_backbone(backbone):
            warnings.warn(
                f"prompt {name!r} is unverified: it carries no backbone fingerprint; its width fits {backbone.name}.",
                UnverifiedPromptWarning,
                stacklevel=2,
            )
        prompt_PH = stored.prompt()
        stored.check_backbone(backbone)  # again: it may have been replaced in between
        return prompt_PH

    def stack(self, names: Sequence[str], backbone: Backbone) -> PromptStack:
        """Prompts as one stack in float32 on a backbone's device, each run a prompt; refusals as in `load`.

        Their keys change when a prompt is replaced, so that what is remembered of one is never taken for the other.
        """
        keys = [f"{self.location}/{name}#{self.folders.version(name)}" for name in names]
        return PromptStack.of([self.load(name, backbone).float().to(backbone.device) for name in names], keys=keys)

    def remove(self, name: str) -> None:
        """Remove a prompt.

        Raises:
            UnknownNameError: there is none of that name.
        """
        artifacts.check_name(name, "prompt name")
        if not self.folders.exists(name):
            raise UnknownNameError("prompt", name, self.folders.scan())
        self.folders.remove(name)

    def verify(self, names: Iterable[str] | None = None) -> Mapping[str, builtins.list[str]]:
        """What is wrong with prompts, by name, after reading all of them; empty where all are well.

        Every file is hashed; a folder holds the known files and no others; tensors are finite and of the shapes and dtypes
        that the manifest says; the vectors that `search` compares are those of the task embedding.

        Args:
            names: which prompts; all where None.
        """
        problems: dict[str, builtins.list[str]] = {}
        for name in waits.each("checking prompts", sorted(self.folders.scan()) if names is None else list(names)):
            found = problems_of(self.folders, name) if name in self else [str(self._unknown(name))]
            if found and (names is not None or name in self):  # otherwise it was removed in between
                problems[name] = found
        return problems

    def sweep(self, *, older_than_s: float = 3600.0) -> int:
        """Delete what killed writers left behind; returns how many. Only for local libraries."""
        if isinstance(self.folders, LocalFolders):
            return artifacts.sweep(self.folders.root, older_than_s=older_than_s)
        return 0

    def names(self) -> builtins.list[str]:
        """The names of all complete prompt folders, sorted; nothing is read."""
        return sorted(self.folders.scan())

    def list(
        self,
        *,
        task: str | None = None,
        tag: str | None = None,
        backbone: BackboneIdentity | None = None,
        verified: bool | None = None,
    ) -> builtins.list[Entry]:
        """The prompts' headlines in order of names. Unreadable ones are left out and named in ``index.problems``.

        Args:
            task: only those of a task.
            tag: only those with a tag.
            backbone: only those that `load` would give for it.
            verified: only those with (True) or without (False) a backbone fingerprint.
        """
        return [
            entry
            for entry in self.index.entries().values()
            if (task is None or entry.task == task)
            and (tag is None or tag in entry.tags)
            and (backbone is None or fits(entry, backbone))
            and (verified is None or entry.verified == verified)
        ]


def fits(entry: Entry, backbone: BackboneIdentity) -> bool:
    """Whether a prompt's width and, where known, fingerprint are the backbone's."""
    return entry.width == backbone.hidden_size and entry.backbone_fingerprint in (None, backbone.fingerprint)
