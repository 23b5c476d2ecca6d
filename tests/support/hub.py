"""A Hub in memory that keeps commits as the real one does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any


class FakeHub:
    """Repositories as lists of commits, each the whole tree; the methods of ``HfApi`` that are used."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        self.private.setdefault(repo_id, private)
        self.commits.setdefault(repo_id, [{}])

    def repo_info(self, repo_id: str, revision: str | None = None) -> Any:
        if repo_id not in self.commits:
            raise ConnectionError("401 Client Error.\nRepository Not Found")
        return SimpleNamespace(sha=revision or f"c{len(self.commits[repo_id]) - 1}")

    def _tree(self, repo_id: str, revision: str) -> dict[str, bytes]:
        return self.commits[repo_id][int(revision.removeprefix("c"))]

    def list_repo_files(self, repo_id: str, *, revision: str) -> list[str]:
        return sorted(self._tree(repo_id, revision))

    def hf_hub_download(self, repo_id: str, path: str, *, revision: str) -> str:
        local = self.cache / revision / path
        local.parent.mkdir(parents=True, exist_ok=True)
        local.write_bytes(self._tree(repo_id, revision)[path])
        return str(local)

    def create_commit(self, repo_id: str, *, operations: list[Any], commit_message: str, parent_commit: str) -> Any:
        assert parent_commit == f"c{len(self.commits[repo_id]) - 1}"
        tree = dict(self.commits[repo_id][-1])
        for operation in operations:
            if type(operation).__name__ == "CommitOperationDelete":
                del tree[operation.path_in_repo]
            else:
                tree[operation.path_in_repo] = operation.path_or_fileobj
        self.commits[repo_id].append(tree)
        return SimpleNamespace(oid=f"c{len(self.commits[repo_id]) - 1}")
