"""A latent space on the disk: one folder with a manifest, refused on another backbone or encoder.

    manifest.json        what it is: backbone, encoder, settings, training, digests
    space.safetensors    skills [K, m], position [P, H], w1 [H, m], b1 [H], w2 [H, H], b2 [H], centre [m]

A folder of kind ``space`` holds what source training gave; one of kind ``prompt`` holds the same tensors with the
generator tuned on a target task, and names the space it came from.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from softprompt import artifacts
from softprompt.backbones.base import Backbone
from softprompt.errors import (
    CorruptArtifactError,
    DataError,
    IncompatibleBackboneError,
    SoftpromptError,
    UsageError,
    one_line,
)
from softprompt.methods.sharpt.cache import CachedEncoder
from softprompt.methods.sharpt.encoders import load_encoder
from softprompt.methods.sharpt.manifest import FORMAT, VERSION, SpaceManifest, read_manifest
from softprompt.prompts.latent import GENERATOR, InstanceEncoder, LatentPrompts, LatentSettings
from softprompt.tasks.wording import Wording

MANIFEST, TENSORS = "manifest.json", "space.safetensors"


@dataclass(frozen=True, kw_only=True)
class Space:
    """A latent space and its generator, without a run axis.

    Attributes:
        kind: ``space`` (from source training) or ``prompt`` (adapted to one target task).
        name: what it is called.
        tensors: by name, float32, in the units they are tuned in.
        settings: how skills are chosen.
        centre_m: float32 [m], subtracted from encodings.
        spread: what they are divided by.
        scales: units of the tensors.
        backbone: name, fingerprint and hidden_size.
        encoder: name, fingerprint and width.
        task_names: words that name a task, left out of encoded texts where one stands first; none where encodings were
            made with them.
        wording: how a row of the target becomes what the backbone reads (`softprompt.tasks.wording.Wording.record`); None
            for a space, and where it is not known. With ``task`` and ``chat`` it is what `softprompt.tasks.tuned` reads.
        training: plain JSON: recipe, seed, steps, scores, fingerprints of the data.
    """

    kind: Literal["space", "prompt"]
    name: str
    tensors: Mapping[str, Tensor]
    settings: LatentSettings
    centre_m: Tensor
    spread: float
    scales: Mapping[str, float]
    backbone: Mapping[str, Any]
    encoder: Mapping[str, Any]
    task_names: tuple[str, ...] = ()
    wording: Mapping[str, Any] | None = None
    training: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return one_line(
            f"<Space {self.name}: a {self.kind}, {self.prompt_length} tokens on {self.backbone.get('name')}>"
        )

    @property
    def prompt_length(self) -> int:
        """P."""
        return int(self.tensors["position"].shape[0])

    @property
    def task(self) -> str:
        """The target task; the space's own name where there is none."""
        return str(self.training.get("task", self.name))

    @property
    def chat(self) -> Mapping[str, Any] | None:
        """The conversation its texts were put into (`softprompt.tasks.chat.Chat.record`)."""
        found: Mapping[str, Any] | None = (self.wording or {}).get("chat")
        return found

    @property
    def skill_count(self) -> int:
        """K; 0 without a latent space."""
        return int(self.tensors["skills"].shape[0]) if "skills" in self.tensors else 0

    @classmethod
    def of(
        cls,
        prompts: LatentPrompts,
        backbone: Backbone,
        *,
        name: str,
        kind: Literal["space", "prompt"],
        run: int = 0,
        tensors: Mapping[str, Tensor] | None = None,
        training: Mapping[str, Any] | None = None,
        wording: Mapping[str, Any] | None = None,
    ) -> Space:
        """One run of a prompter; ``tensors`` (shapes without the run axis N) replaces its present ones, e.g. with the best."""
        present = {n: t.detach()[run].to("cpu", torch.float32) for n, t in prompts.tensors.items()}
        chosen = {**present, **{n: t.detach().to("cpu", torch.float32) for n, t in (tensors or {}).items()}}
        return cls(
            kind=kind,
            name=name,
            tensors={n: t.clone() for n, t in chosen.items()},
            settings=prompts.settings,
            centre_m=prompts.centre_m.detach().to("cpu", torch.float32),
            spread=prompts.spread,
            scales=dict(prompts.scales),
            backbone={"name": backbone.name, "fingerprint": backbone.fingerprint, "hidden_size": backbone.hidden_size},
            encoder={
                "name": prompts.encoder.name,
                "fingerprint": prompts.encoder.fingerprint,
                "width": prompts.encoder.width,
            },
            task_names=prompts.task_names,
            wording=wording,
            training=dict(training or {}),
        )

    def prompter(
        self,
        backbone: Backbone,
        encoder: InstanceEncoder,
        *,
        runs: int = 1,
        tuned: bool = False,
        keys: Sequence[str | None] | None = None,
        task_names: Sequence[str] | None = None,
    ) -> LatentPrompts:
        """``runs`` copies of it as a prompter; where ``tuned``, the generator is, and E stays frozen (Eq. 3).

        ``task_names`` takes the place of the space's own, for targets that bring names of their own.

        Raises:
            IncompatibleBackboneError: another backbone or another encoder than it was trained with.
        """
        check_belongs(self, backbone, encoder)
        device = backbone.device
        return LatentPrompts(
            {name: t.to(device).expand(runs, *t.shape) for name, t in self.tensors.items()},
            encoder,
            settings=self.settings,
            tuned=generator_names(self.tensors) if tuned else (),
            codebook_loss=False,
            centre_m=self.centre_m.to(device),
            spread=self.spread,
            scales=self.scales,
            keys=keys if keys is not None else (self.name,) * runs,
            task_names=self.task_names if task_names is None else task_names,
        )

    def save(self, folder: Path, *, replace: bool = False) -> dict[str, Any]:
        """Writes the folder at one instant; returns its manifest."""
        data = artifacts.tensor_bytes({**self.tensors, "centre": self.centre_m})
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "kind": self.kind,
            "name": self.name,
            "backbone": dict(self.backbone),
            "encoder": dict(self.encoder),
            "prompt_length": self.prompt_length,
            "skill_count": self.skill_count,
            "settings": asdict(self.settings),
            "spread": self.spread,
            "scales": dict(self.scales),
            "task_names": list(self.task_names),
            "wording": None if self.wording is None else dict(self.wording),
            "training": dict(self.training),
            "versions": {"torch": torch.__version__, "python": sys.version.split()[0]},
            "sha256": {TENSORS: artifacts.sha256_bytes(data)},
        }
        files = {TENSORS: data, MANIFEST: artifacts.json_bytes(manifest, sealed=True)}
        artifacts.write_folder(folder, files, replace=replace)
        return manifest


def generator_names(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """What is tuned on a target, of tensors [N, ...]: the generator, and the task prompt of a residual; never the skills."""
    return tuple(n for n in (*GENERATOR, "task_prompt") if n in tensors)


def load_space(folder: Path) -> Space:
    """Reads a folder that ``Space.save`` wrote.

    Raises:
        DataError: there is none.
        CorruptArtifactError: its bytes are not those that were written, or its tensors do not fit together.
    """
    if not os.path.isfile(folder / MANIFEST):  # False for a name that no file can have, too
        raise DataError(f"no latent space in {folder}: it has no {MANIFEST}; train one with 'softprompt sharpt train'.")
    told = read_manifest(folder / MANIFEST)
    tensors = artifacts.read_tensors(folder / TENSORS, sha256=told.sha256["space.safetensors"])
    centre_m = tensors.pop("centre", torch.zeros(0))
    space = Space(
        kind=told.kind,
        name=told.name,
        tensors=tensors,
        settings=LatentSettings(**told.settings.model_dump(exclude={"metric"})),
        centre_m=centre_m,
        spread=told.spread,
        scales={str(name): scale for name, scale in told.scales.items()},
        backbone=told.backbone.model_dump(),
        encoder=told.encoder.model_dump(),
        task_names=told.task_names,
        wording=None if told.wording is None else Wording.of_record(told.wording).record(),
        training=told.training,
    )
    _check_tensors(space, told, folder)
    return space


def _check_tensors(space: Space, told: SpaceManifest, folder: Path) -> None:
    """Refuses tensors that are not those the manifest speaks of.

    Raises:
        CorruptArtifactError: naming the first that is missing, too many, of another shape, or not finite float32.
    """
    p, h, m = told.prompt_length, told.backbone.hidden_size, told.encoder.width
    shapes = {"position": (p, h), "w1": (h, m), "b1": (h,), "w2": (h, h), "b2": (h,), "centre": (m,)}
    if space.settings.latent_space:
        shapes["skills"] = (told.skill_count, m)
    if "task_prompt" in space.tensors:
        shapes["task_prompt"] = (p, h)
    found = {**space.tensors, "centre": space.centre_m}
    for name in sorted(set(shapes) | set(found)):
        tensor = found.get(name)
        if name not in shapes:
            problem = f"tensor {name!r} does not belong there"
        elif tensor is None or tuple(tensor.shape) != shapes[name]:
            problem = (
                f"tensor {name!r} should be {shapes[name]}, found {None if tensor is None else tuple(tensor.shape)}"
            )
        elif tensor.dtype != torch.float32 or not bool(tensor.isfinite().all()):
            problem = f"tensor {name!r} should be finite float32"
        else:
            continue
        raise CorruptArtifactError(
            f"latent space {folder} is not what was written ({problem}); restore it or train it again."
        )


def check_belongs(space: Space, backbone: Backbone, encoder: InstanceEncoder | None = None) -> None:
    """Refuses a space on another backbone, or with another encoder, than it was trained with.

    Raises:
        IncompatibleBackboneError: with what was found and what to do.
    """
    if space.backbone["fingerprint"] != backbone.fingerprint:
        raise IncompatibleBackboneError(
            f"latent space {space.name!r} was trained on {space.backbone['name']} (width {space.backbone['hidden_size']}); "
            f"backbone {backbone.name} (width {backbone.hidden_size}) is another model. "
            f"Generated prompts do not move between backbones: load {space.backbone['name']} or train a space again."
        )
    if encoder is not None and space.encoder["fingerprint"] != encoder.fingerprint:
        raise IncompatibleBackboneError(
            f"latent space {space.name!r} was trained with instance encoder {space.encoder['name']} "
            f"(width {space.encoder['width']}); {encoder.name} (width {encoder.width}) is another one: "
            f"use {space.encoder['name']} or train a space again."
        )


def space_encoder(space: Space, backbone: Backbone, cache: Path | None = None) -> CachedEncoder:
    """The instance encoder a space was trained with, by the name it remembers.

    Raises:
        IncompatibleBackboneError: the encoder that loads under that name is another one, or none loads.
    """
    name = str(space.encoder["name"])
    try:
        encoder = load_encoder(name, backbone)
    except SoftpromptError as error:
        raise IncompatibleBackboneError(
            f"latent space {space.name!r} needs its instance encoder {name!r}, which could not be loaded: {error}"
        ) from error
    check_belongs(space, backbone, encoder)
    return CachedEncoder(encoder, cache)


def load_prompter(
    folders: Sequence[Path], backbone: Backbone, *, encoder: InstanceEncoder | None = None
) -> LatentPrompts:
    """Prompts adapted from one space, ready to evaluate or serve: run i is folder i.

    Raises:
        IncompatibleBackboneError: another backbone or encoder, or folders that do not share settings and scales.
    """
    spaces = [load_space(folder) for folder in folders]
    first = spaces[0]
    if encoder is None:
        encoder = space_encoder(first, backbone)
    for space, folder in zip(spaces, folders, strict=True):
        check_belongs(space, backbone, encoder)
        if not _together(first, space):
            raise IncompatibleBackboneError(
                f"{folders[0]} and {folder} come from different latent spaces; serve them as two prompters."
            )
    merged = {name: torch.stack([s.tensors[name] for s in spaces]).to(backbone.device) for name in first.tensors}
    return LatentPrompts(
        merged,
        encoder,
        settings=first.settings,
        centre_m=first.centre_m.to(backbone.device),
        spread=first.spread,
        scales=first.scales,
        keys=[space.name for space in spaces],
        task_names=[name for space in spaces for name in space.task_names],
    )


def load_prompters(folders: Sequence[Path], backbone: Backbone) -> dict[str, LatentPrompts]:
    """Prompts adapted from any spaces, by name, each a prompter of its own; one encoder in memory for all that share it.

    Raises:
        UsageError: two of them have the same name.
        IncompatibleBackboneError: another backbone, or an encoder that does not load.
    """
    encoders: dict[str, CachedEncoder] = {}
    places: dict[str, Path] = {}
    found: dict[str, LatentPrompts] = {}
    for folder in folders:
        space = load_space(folder)
        if space.name in places:
            raise UsageError(
                f"{places[space.name]} and {folder} are both called {space.name!r}: give one of them alone, or adapt again "
                "with another seed."
            )
        which = str(space.encoder["fingerprint"])
        if which not in encoders:
            encoders[which] = space_encoder(space, backbone)
        places[space.name] = folder
        found[space.name] = space.prompter(backbone, encoders[which])
    return found


def _together(one: Space, other: Space) -> bool:
    shapes = {n: tuple(t.shape) for n, t in one.tensors.items()} == {
        n: tuple(t.shape) for n, t in other.tensors.items()
    }
    same = one.settings == other.settings and dict(one.scales) == dict(other.scales) and one.spread == other.spread
    return shapes and same and torch.equal(one.centre_m, other.centre_m)
