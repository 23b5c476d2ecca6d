"""Where rows come from: local folders, the Hugging Face hub, memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from softprompt import waits
from softprompt.errors import DataError
from softprompt.tasks.readers import FORMATS, SEPARATORS, format_of, read_rows, separator
from softprompt.tasks.rows import BadRows, Row
from softprompt.tasks.unpacking import COMPRESSIONS

SPLIT_FILES: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "validation_matched", "valid", "val", "dev"),
    "test": ("test", "test_matched"),
}
"""File stems that may hold a split, in order of preference."""


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """Rows from ``<folder>/<split>.<format>``.

    Attributes:
        folder: holds one file a split.
        keep: the rows to use; all where None.
        rename: file column -> column of the task.
        files: split -> file, for files named otherwise; ``SPLIT_FILES`` in the folder where not given.
        stem: what stands before the split in the files' names: ``reviews`` of ``reviews.train.jsonl.gz``.
    """

    folder: Path
    keep: Callable[[Mapping[str, Any]], bool] | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    stem: str = ""

    def find(self, split: str) -> Path | None:
        """The file of a split; None where there is none."""
        if self.files:
            return self.files.get(split)
        front = f"{self.stem}." if self.stem else ""
        for stem in SPLIT_FILES.get(split, (split,)):
            for kind in FORMATS:
                for compression in COMPRESSIONS:
                    path = self.folder / f"{front}{stem}{kind}{compression}"
                    if path.is_file():
                        return path
        return None

    def rows(self, split: str, bad: BadRows) -> Iterator[Row]:
        path = self.find(split)
        if path is None:
            there = sorted(p.name for p in self.folder.iterdir())[:8] if self.folder.is_dir() else []
            holds = f"it holds {', '.join(there)}" if there else "it is empty or missing"
            raise DataError(
                f"{self.folder}: no file for split {split!r} (looked for {split}.jsonl, .csv, .tsv, .parquet, "
                f"plain or .gz or .zst); {holds}."
            )
        where, found = str(path), False
        for number, values in read_rows(path, bad):
            found = True
            if self.keep is not None and not self.keep(values):
                continue
            if self.rename:
                values = {self.rename.get(name, name): value for name, value in values.items()}
            yield Row(values=values, line=number, where=where, train=split == "train", labelled=split != "test")
        if not found and not bad.count:
            raise DataError(f"{path}: has no rows; give it at least one.")

    def describe(self) -> dict[str, Any]:
        found: dict[str, Any] = {"kind": "files", "folder": str(self.folder), "files": self._found()}
        path = self.find("train")
        if path is not None and path.is_file() and format_of(path) == ".csv" and separator(path) != ",":
            found["fields"] = f"separated by {SEPARATORS[separator(path)]}"
        return found

    def state(self, split: str) -> str | None:
        """The file's place, size and time."""
        path = self.find(split)
        if path is None or not path.is_file():
            return None
        stat = path.stat()
        return f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"

    def _found(self) -> dict[str, str]:
        paths = {split: self.find(split) for split in SPLIT_FILES}
        return {split: path.name for split, path in paths.items() if path is not None}


@dataclass(frozen=True, kw_only=True)
class MemorySource:
    """Rows that a program holds or makes.

    Attributes:
        splits: split name -> rows, or a function that gives them.
        what: how `tasks show` names the source.
    """

    splits: Mapping[str, Sequence[Mapping[str, Any]] | Callable[[], Iterable[Mapping[str, Any]]]]
    what: str = "memory"

    def rows(self, split: str, bad: BadRows) -> Iterator[Row]:
        if split not in self.splits:
            raise DataError(f"{self.what}: no split {split!r}; it has {', '.join(self.splits)}.")
        held = self.splits[split]
        for i, values in enumerate(held() if callable(held) else waits.each("reading rows", held)):
            yield Row(
                values=values,
                line=i + 1,
                where=f"{self.what}, split {split}",
                train=split == "train",
                labelled=split != "test",
            )

    def describe(self) -> dict[str, Any]:
        return {"kind": self.what, "splits": list(self.splits)}

    def state(self, split: str) -> None:
        """Nothing stands for rows in memory."""


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """Rows of a parquet data set on the Hugging Face hub; no code of the hub is run.

    Attributes:
        repo: ``owner/name``.
        config: its configuration; None for the only one.
        branch: ``main``, or ``refs/convert/parquet`` where only the hub's own conversion of a script is parquet.
        revision: a commit to read; None reads the newest of ``branch``, and records it in `resolved`.
        splits: split -> the hub's split names, several of them read one after the other.
        rename: hub column -> column of the task.
        keep: the rows to use; all where None.
        tag: a column to add that names the hub split a row came from; none where empty.
        streamed: read over the network as needed, without a download of the whole.
    """

    repo: str
    config: str | None = None
    branch: str = "main"
    revision: str | None = None
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    keep: Callable[[Mapping[str, Any]], bool] | None = None
    tag: str = ""
    streamed: bool = False
    resolved: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def rows(self, split: str, bad: BadRows) -> Iterator[Row]:
        number = 0
        for name in self.splits.get(split, (split,)):
            for values in self._load(name):
                number += 1
                if self.keep is not None and not self.keep(values):
                    continue
                if self.rename:
                    values = {self.rename.get(column, column): value for column, value in values.items()}
                if self.tag:
                    values = {**values, self.tag: name}
                yield Row(
                    values=values,
                    line=number,
                    where=f"hf://datasets/{self.repo}, split {name}",
                    train=split == "train",
                    labelled=split != "test",
                )

    def pin(self) -> str | None:
        """The commit that is read, looked up once; None where the hub cannot be asked (offline)."""
        if self.revision is not None:
            return self.revision
        if "revision" not in self.resolved and os.environ.get("HF_HUB_OFFLINE", "0") in ("", "0"):
            from huggingface_hub import HfApi

            try:
                sha = HfApi().dataset_info(self.repo, revision=self.branch).sha
            except Exception as error:
                raise DataError(
                    f"data set {self.repo!r} could not be found on the hub ({type(error).__name__}); check the network, "
                    "set HF_HUB_OFFLINE=1 to read the cache, or give local files with --data."
                ) from error
            if sha:
                self.resolved["revision"] = sha
        return self.resolved.get("revision")

    def _load(self, name: str) -> Iterator[Mapping[str, Any]]:
        """The rows of one of the hub's splits; whatever goes wrong, at first or half way, is a `DataError`."""
        try:
            yield from self._opened(name)
        except DataError:
            raise
        except Exception as error:
            reason = str(error).strip().split("\n")[0][:200]
            raise DataError(
                f"split {name!r} of {self.repo!r} could not be read ({type(error).__name__}: {reason}); check the "
                "network and the name, or give local files with --data."
            ) from error

    def _opened(self, name: str) -> Iterable[Mapping[str, Any]]:
        try:
            import datasets
        except ImportError:
            raise DataError(
                f"reading {self.repo!r} from the hub needs the package datasets; install softprompt[data]."
            ) from None
        revision = self.pin()
        path, config = self.repo, self.config
        settings: dict[str, Any] = {"split": name, "revision": revision}
        if self.branch != "main":
            at = revision or self.branch.replace("/", "%2F")
            folder = self._converted_folder(name, revision)
            files = f"hf://datasets/{self.repo}@{at}/{folder}/{name}/*.parquet"
            path, config = "parquet", None
            settings = {"split": "rows", "data_files": {"rows": files}}
        rows: Iterable[Mapping[str, Any]] = datasets.load_dataset(path, config, **settings, streaming=self.streamed)
        return rows

    def _converted_folder(self, name: str, revision: str | None) -> str:
        """The folder of the configuration in the hub's conversion, which sometimes names it ``default``."""
        wanted = self.config or "default"
        if revision is None:
            return wanted
        from huggingface_hub import HfApi

        paths = HfApi().list_repo_files(self.repo, repo_type="dataset", revision=revision)
        folders = sorted({p.split("/")[0] for p in paths if f"/{name}/" in p and p.endswith(".parquet")})
        if wanted in folders:
            return wanted
        if "default" in folders or len(folders) == 1:
            return "default" if "default" in folders else folders[0]
        raise DataError(
            f"{self.repo!r} has no parquet for {wanted!r}, split {name!r}; it has {', '.join(folders) or 'none'}."
        )

    def state(self, split: str) -> str | None:
        """The commit, where it is known, and what is read of it."""
        revision = self.pin()
        names = self.splits.get(split, (split,))
        return revision and f"{self.repo} {self.config} {self.branch} {revision} {' '.join(names)}"

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "hub",
            "repo": self.repo,
            "config": self.config,
            "branch": self.branch,
            "revision": self.revision or self.resolved.get("revision"),
            "splits": {k: list(v) for k, v in self.splits.items()},
        }


@dataclass(frozen=True, kw_only=True)
class MissingSource:
    """A task whose data is neither here nor on the hub; says how to get it when it is read."""

    remedy: str

    def rows(self, split: str, bad: BadRows) -> Iterator[Row]:
        raise DataError(self.remedy)

    def describe(self) -> dict[str, Any]:
        return {"kind": "missing", "remedy": self.remedy}

    def state(self, split: str) -> None:
        """There are no rows."""
