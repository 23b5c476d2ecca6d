"""``softprompt library import, export, push, pull``: prompts of other formats and places."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from softprompt.cli import opening
from softprompt.cli.app import command
from softprompt.cli.flags import flag
from softprompt.cli.library import Place, Replace, library
from softprompt.cli.output import Answer, lines
from softprompt.errors import DataError, UsageError

if TYPE_CHECKING:
    from softprompt.library.store import Library, StoredPrompt

Repo = Annotated[str, typer.Argument(help="Hub repository, user/name.", show_default=False)]
Names = Annotated[list[str] | None, typer.Argument(help="Prompts; all if none is named.")]
# format -> the suffix its file has; PEFT's is a folder
SUFFIXES = {"npy": ".npy", "vllm": ".safetensors"}


@command(
    library,
    "import",
    "softprompt library import prompts adapter/ --task cb",
    "softprompt library import prompts encoder.prompt.npy --task mnli --name mnli@0",
)
def import_(
    place: Place,
    source: Annotated[Path, typer.Argument(help="PEFT folder, .npy or .safetensors.", show_default=False)],
    task: Annotated[str | None, flag("--task", "What it was tuned on; from the name if not given.")] = None,
    name: Annotated[str | None, flag("--name", "Name in the library; TASK@SEED if not given.")] = None,
    licence: Annotated[str | None, flag("--licence", "Licence of the prompt (SPDX).")] = None,
    replace: Replace = False,
) -> Answer:
    """Add a prompt of another format."""
    if not source.exists():
        raise DataError(f"there is nothing at {source}: name a PEFT folder, or a .npy or .safetensors file.")
    stored = _imported(opening.open_library(place, must_exist=False), source, task, name, licence, replace)
    known = "" if stored.manifest.verified else ", unverified: it carries no fingerprint of its backbone"
    facts = stored.manifest
    told = f"added {stored.name} ({facts.prompt_length} x {facts.width}, {facts.backbone_name}{known})"
    after = [("library", "show", place, stored.name), ("predict", place, "--prompt", stored.name, "TEXT")]
    return Answer(
        data={"library": place, "name": stored.name, "verified": facts.verified}, show=lines(told), next=after
    )


def _imported(
    store: Library, source: Path, task: str | None, name: str | None, licence: str | None, replace: bool
) -> StoredPrompt:
    more: dict[str, Any] = {key: value for key, value in (("name", name), ("licence", licence)) if value is not None}
    if source.is_dir():
        from softprompt.library.formats.peft import import_peft

        return import_peft(store, source, task, replace=replace, **more)
    if source.suffix == ".safetensors":
        from softprompt.library.formats.vllm import read_prompt_embeds
        from softprompt.library.record import PromptRecord

        record = PromptRecord(
            task=task or source.stem, prompt=read_prompt_embeds(source), backbone_name="unknown",
            backbone_fingerprint=None, backbone_kind="causal", origin=f"prompt_embeds file {source.name}", **more,
        )  # fmt: skip
        return store.add(record, replace=replace)
    from softprompt.library.formats.npy import npy_record

    return store.add(npy_record(source, task, **more), replace=replace)


@command(
    library,
    "export",
    "softprompt library export prompts cb@1 adapter",
    "softprompt library export prompts engine --format lora",
)
def export(
    place: Place,
    names: Annotated[
        list[str] | None, typer.Argument(help="The prompt; for lora several, all if none is named.")
    ] = None,
    *,
    out: Annotated[Path, typer.Argument(help="File, or folder for peft and lora.", show_default=False)],
    kind: Annotated[
        Literal["peft", "lora", "npy", "vllm"],
        flag("--format", "peft folder, lora for vLLM and SGLang, Google's npy, vllm's prompt_embeds."),
    ] = "peft",
    backbone: Annotated[
        str | None, flag("--backbone-name", "What PEFT or vLLM is to load; the manifest's if not given.")
    ] = None,
    replace: Annotated[bool, flag("--replace", "Replace what stands there.")] = False,
) -> Answer:
    """Write a prompt in another format.

    lora writes one folder for an engine: an adapter a prompt, a tokenizer, and the script that starts vLLM.
    """
    store = opening.open_library(place)
    if kind == "lora":
        return _export_lora(store, list(names or store.names()), out, backbone, replace)
    if names is None or len(names) != 1:
        raise UsageError(f"format {kind} holds one prompt: name one of the library, or use --format lora for several.")
    name = names[0]
    stored = store.get(name)
    suffix = SUFFIXES.get(kind, "")
    if out.suffix != suffix and suffix:
        raise UsageError(f"format {kind} is a {suffix} file; name it {out.with_suffix(suffix)}.")
    if out.exists() and not replace:
        raise UsageError(f"{out} exists: add --replace, or name another place.")
    _export(stored, out, kind, backbone, replace)
    told = lines(f"{name} written to {out} ({kind})")
    after = [("library", "show", place, name), ("library", "push", place, "OWNER/NAME", name)]
    return Answer(data={"name": name, "format": kind, "out": out}, show=told, next=after)


def _export_lora(store: Library, names: list[str], out: Path, model: str | None, replace: bool) -> Answer:
    """Prompts of one backbone as adapters; a second call with the same folder adds to it."""
    from softprompt.library.formats.lora import export_lora

    if not names:
        raise UsageError(f"library {store.location} holds no prompts; nothing was exported.")
    prompts = [store.get(name) for name in names]
    backbone = prompts[0].manifest.backbone_name
    opened = opening.open_backbone(backbone, "float32", "cpu")
    made = export_lora(opened, prompts, out, model=model or _weights_of(backbone), replace=replace)
    told = []
    for one in made:
        told.append(
            f"{', '.join(one.added)} written to {one.folder / 'adapters'} ({one.prompt_length} tokens, rank {one.rank})"
        )
        rare = (
            f"{len(one.rare)} rare tokens among them: texts with these are read in smaller pieces" if one.rare else ""
        )
        told.append(f"{one.prompt_length} token ids are reserved{'; ' if rare else ''}{rare}")
        told.append(f'next: {one.folder / "serve.sh"}, then ask for model="{one.added[0]}"')
        if len(one.prompts) > len(one.added):
            told.append(f"or, on a running server: curl HOST/v1/load_lora_adapter (see {one.folder / 'README.md'})")
    return Answer(data={"format": "lora", "exports": made}, show=lines(*told, wrap=False))


def _weights_of(backbone: str) -> str:
    """What an engine loads for a backbone: the folder where it lies (unpacked from GGUF where it is one), or its hub id."""
    from softprompt.backbones.gguf import SMOLLM2
    from softprompt.backbones.load import convert_backbone

    if backbone == SMOLLM2 or backbone.lower().endswith(".gguf"):
        return str(convert_backbone(backbone))
    folder = Path(backbone).expanduser()
    return str(folder.resolve()) if folder.is_dir() else backbone


def _export(stored: StoredPrompt, out: Path, kind: str, backbone: str | None, replace: bool) -> None:
    if kind == "npy":
        from softprompt.library.formats.npy import write_npy

        write_npy(out, stored.prompt())
    elif kind == "vllm":
        from softprompt.library.formats.vllm import write_prompt_embeds

        write_prompt_embeds(out, stored.prompt())
    else:
        from softprompt.library.formats.peft import write_peft

        facts = stored.manifest
        name = backbone or facts.backbone_name
        write_peft(out, stored.prompt(), backbone_name=name, backbone_kind=facts.backbone_kind, replace=replace)


@command(
    library,
    "push",
    "softprompt library push prompts me/prompts",
    "softprompt library push prompts me/prompts cb@1 --public",
)
def push(
    place: Place,
    repo: Repo,
    names: Names = None,
    public: Annotated[bool, flag("--public", "A new repository is public.")] = False,
    replace: Replace = False,
    message: Annotated[str, flag("--message", "Of the commit.")] = "",
) -> Answer:
    """Upload prompts to the Hugging Face Hub, in one commit."""
    from softprompt.library.formats.hub import push as push_to

    store = opening.open_library(place)
    commit = push_to(store, repo, list(names) if names else None, private=not public, replace=replace, message=message)
    told = f"{repo} holds the prompts at commit {commit[:12]}"
    return Answer(
        data={"repository": repo, "commit": commit},
        show=lines(told),
        next=[("library", "ls", f"hf://{repo}"), ("library", "pull", f"{Path(place).name}-pulled", repo)],
    )


@command(
    library,
    "pull",
    "softprompt library pull prompts me/prompts",
    "softprompt library pull prompts me/prompts cb@1 --revision main",
)
def pull(
    place: Place,
    repo: Repo,
    names: Names = None,
    revision: Annotated[str | None, flag("--revision", "Commit, tag or branch.")] = None,
    replace: Replace = False,
) -> Answer:
    """Download prompts from the Hugging Face Hub, every file checked."""
    from softprompt.library.formats.hub import pull as pull_from

    store = opening.open_library(place, must_exist=False)
    found = pull_from(store, repo, list(names) if names else None, revision=revision, replace=replace)
    made = [prompt.name for prompt in found.added]
    told = f"added {', '.join(made) or 'nothing new'} from {repo} at commit {found.commit[:12]}"
    data = {"library": store.location, "commit": found.commit, "added": made}
    return Answer(data=data, show=lines(told), next=[("library", "ls", place), ("serve", place)])
