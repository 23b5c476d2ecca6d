"""Libraries on the Hugging Face Hub: push and pull prompt folders, one commit a push, every file checked on the way in.

A repository laid out like a library can also be opened where it is: ``Library("hf://user/repo")``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from softprompt import artifacts, waits
from softprompt.errors import CorruptArtifactError, SoftpromptError, UnknownNameError, UsageError
from softprompt.library.manifest import Manifest
from softprompt.library.record import MANIFEST
from softprompt.library.store import Library, StoredPrompt


class HubError(SoftpromptError):
    """The Hub could not be reached, or refused."""


class Pulled(NamedTuple):
    """What a `pull` brought.

    Attributes:
        commit: that everything was taken from.
        added: the prompts that were added.
    """

    commit: str
    added: list[StoredPrompt]


def push(
    library: Library,
    repo_id: str,
    names: Iterable[str] | None = None,
    *,
    private: bool = True,
    replace: bool = False,
    message: str = "",
    api: Any = None,
) -> str:
    """Upload prompts in one commit, so that nobody sees half of them.

    Args:
        library: where they are.
        repo_id: ``user/name``; made where it does not exist.
        names: which prompts; all where None.
        private: whether a new repository is private.
        replace: whether prompts that are there already are replaced; otherwise they must be the same.
        message: of the commit.
        api: a ``huggingface_hub.HfApi`` to use.

    Returns:
        the new commit, or the current one where nothing had changed.

    Raises:
        UsageError: no prompt, or one of another content is there and ``replace`` is False.
        CorruptArtifactError: a prompt of the library is not what was written; nothing is uploaded.
        HubError: the Hub could not be reached, or refused.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api = _api(api)
    chosen = [library.get(name) for name in (library.names() if names is None else names)]
    if not chosen:
        raise UsageError(f"{library.location} holds no prompt to push.")
    files = {
        f"{prompt.name}/{file}": data
        for prompt in waits.each("reading prompts", chosen)
        for file, data in prompt.files().items()
    }
    with _hub(f"push to {repo_id}"):
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = str(api.repo_info(repo_id).sha)
        present = set(api.list_repo_files(repo_id, revision=commit))
    there = [prompt for prompt in chosen if f"{prompt.name}/{MANIFEST}" in present]
    changed = [prompt for prompt in there if _remote_manifest(api, repo_id, commit, prompt.name) != prompt.manifest]
    if changed and not replace:
        names_there = ", ".join(prompt.name for prompt in changed[:5])
        raise UsageError(f"{repo_id} already holds other prompts named {names_there}: ask to replace them, or rename.")
    same = {prompt.name for prompt in there} - {prompt.name for prompt in changed}
    added = {path: data for path, data in files.items() if path.split("/")[0] not in same}
    if not added:
        return commit
    stale = {path for p in changed for path in present if path.startswith(f"{p.name}/")} - added.keys()
    operations: list[Any] = [CommitOperationDelete(path_in_repo=path) for path in sorted(stale)]
    operations += [CommitOperationAdd(path_in_repo=path, path_or_fileobj=data) for path, data in added.items()]
    if "README.md" not in present:
        operations.append(CommitOperationAdd(path_in_repo="README.md", path_or_fileobj=_card(chosen).encode()))
    text = message or f"Add {len(chosen) - len(same)} soft prompts"
    with _hub(f"push to {repo_id}"):
        done = api.create_commit(repo_id, operations=operations, commit_message=text, parent_commit=commit)
    return str(done.oid)


def push_prompt(prompt: StoredPrompt, repo_id: str, *, private: bool = True, message: str = "", api: Any = None) -> str:
    """Upload one prompt as a repository of its own, in one commit: ``PeftModel.from_pretrained(model, repo_id)`` reads it.

    Files that the repository holds beside it stay as they are.

    Args:
        prompt: of a library.
        repo_id: ``user/name``; made where it does not exist.
        private: whether a new repository is private.
        message: of the commit.
        api: a ``huggingface_hub.HfApi`` to use.

    Returns:
        the new commit.

    Raises:
        CorruptArtifactError: the prompt is not what was written; nothing is uploaded.
        HubError: the Hub could not be reached, or refused.
    """
    from huggingface_hub import CommitOperationAdd

    api = _api(api)
    operations = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=data) for path, data in prompt.files().items()]
    with _hub(f"push to {repo_id}"):
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = str(api.repo_info(repo_id).sha)
        text = message or f"Add soft prompt {prompt.name}"
        done = api.create_commit(repo_id, operations=operations, commit_message=text, parent_commit=commit)
    return str(done.oid)


def pull(
    library: Library,
    repo_id: str,
    names: Iterable[str] | None = None,
    *,
    revision: str | None = None,
    replace: bool = False,
    api: Any = None,
) -> Pulled:
    """Download prompts into a library. Each appears only when all its files are what its manifest says.

    Args:
        library: where to.
        repo_id: ``user/name``.
        names: which prompts; all where None.
        revision: branch, tag or commit; resolved to a commit first, and all files are taken from that one.
        replace: whether prompts of the same name are replaced; otherwise those there are kept
            and not downloaded.
        api: a ``huggingface_hub.HfApi`` to use.

    Raises:
        UnknownNameError: a name that is not there.
        CorruptArtifactError: a file is not what its manifest says, and that prompt is not added.
        HubError: the Hub could not be reached, or refused.
    """
    api = _api(api)
    with _hub(f"pull from {repo_id}"):
        commit = str(api.repo_info(repo_id, revision=revision).sha)
        files = api.list_repo_files(repo_id, revision=commit)
    known = {path.split("/")[0] for path in files if path.count("/") == 1 and path.endswith(f"/{MANIFEST}")}
    wanted = sorted(known) if names is None else list(names)
    for name in wanted:
        if name not in known:
            raise UnknownNameError(f"prompt of {repo_id}", name, known)
        artifacts.check_name(name, "prompt name")
    added = []
    for name in waits.each("fetching prompts", wanted):
        if name in library and not replace:
            continue
        manifest = _remote_manifest(api, repo_id, commit, name)
        _refuse_strange(repo_id, name, manifest, files)
        content = {file: _download(api, repo_id, commit, f"{name}/{file}") for file in manifest.files}
        for file, data in content.items():
            artifacts.check_sha256(data, manifest.files[file], f"{repo_id}/{name}/{file}")
        content[MANIFEST] = _download(api, repo_id, commit, f"{name}/{MANIFEST}")
        library.folders.write(name, content, replace=replace)
        added.append(library.get(name))
    return Pulled(commit, added)


def _refuse_strange(repo_id: str, name: str, manifest: Manifest, files: Iterable[str]) -> None:
    there = {path.removeprefix(f"{name}/") for path in files if path.startswith(f"{name}/")}
    strange = sorted(there - {*manifest.files, MANIFEST})
    if strange:
        raise CorruptArtifactError(
            f"{repo_id}/{name} holds {', '.join(strange[:3])}, which a prompt's folder does not have; it was not taken."
        )


def _remote_manifest(api: Any, repo_id: str, commit: str, name: str) -> Manifest:
    place = f"{repo_id}/{name}/{MANIFEST}"
    manifest = Manifest.from_bytes(_download(api, repo_id, commit, f"{name}/{MANIFEST}"), place)
    if manifest.name != name:
        raise CorruptArtifactError(f"{place} is that of prompt {manifest.name!r}; it was not taken.")
    return manifest


def _download(api: Any, repo_id: str, commit: str, path: str) -> bytes:
    with _hub(f"download of {repo_id}/{path}"):
        local = api.hf_hub_download(repo_id, path, revision=commit)
    return Path(local).read_bytes()


def _api(api: Any) -> Any:
    if api is not None:
        return api
    from huggingface_hub import HfApi

    return HfApi()


@contextmanager
def _hub(what: str) -> Iterator[None]:
    """Turns what the Hub's client raises into one sentence."""
    try:
        yield
    except SoftpromptError:
        raise
    except Exception as error:  # the client's own classes, those of its HTTP library, and plain OSErrors
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise HubError(
            f"the {what} failed ({reason}); check the name, your login ('hf auth login') and the network, and try again."
        ) from error


def _card(prompts: Iterable[StoredPrompt]) -> str:
    rows = [
        f"| {p.name} | {p.task} | {p.manifest.backbone_name} | {p.manifest.score if p.manifest.score is not None else ''} |"
        for p in prompts
    ]
    head = "---\nlibrary_name: peft\ntags: [soft-prompt, prompt-tuning]\n---\n\n# A library of soft prompts\n"
    text = "Each folder is a PEFT adapter with a manifest; see its own card for licence, data and scores.\n"
    return "\n".join([head, text, "| prompt | task | backbone | score |", "|---|---|---|---|", *rows, ""])
