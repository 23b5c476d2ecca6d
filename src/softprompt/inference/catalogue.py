"""What a server has now: prompts of a library, which may change at any moment, and prompts held in memory (SharPT's).

Letters: N prompts on the map, H width.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from softprompt import artifacts
from softprompt.backbones.base import Backbone
from softprompt.errors import SoftpromptError
from softprompt.inference.engine import Resolve, Served, first_of, from_library
from softprompt.inference.schemas import Explorer, Model, Models, Point
from softprompt.library.manifest import Manifest
from softprompt.library.metric import DEFAULT_METRIC
from softprompt.library.reading import read_manifest, read_steadily, read_task_vectors
from softprompt.library.store import Library, fits
from softprompt.tasks.tuned import wording_of

MOST_MAPPED = 400  # prompts on the map and in the heatmap; similarity is quadratic
_FAR_S = 1.0  # a library that is not on a local disk is looked at so often, seconds


class Catalogue:
    """Names and facts of all prompts that can be asked for.

    Args:
        backbone: prompts of others are left out.
        library: where prompts are looked for anew at each call; None for none.
        held: prompts in memory by name.
        runs: folder of the training that made the library, for its curves; None where there is none.
    """

    def __init__(
        self,
        backbone: Backbone,
        library: Library | None,
        held: Mapping[str, Served] | None = None,
        runs: Path | None = None,
    ) -> None:
        self._backbone, self.library, self._held, self._runs = backbone, library, dict(held or {}), runs
        self.resolve: Resolve = first_of(self._held, from_library(library, backbone) if library is not None else None)
        self._manifests: dict[str, tuple[str, Manifest]] = {}
        self._map: tuple[dict[str, str], tuple[list[str], np.ndarray, np.ndarray, float | None]] | None = None
        self._far: tuple[float, dict[str, str]] = (0.0, {})

    def versions(self) -> dict[str, str]:
        """A version of each prompt folder of the library; changes when the folder is replaced."""
        if self.library is None:
            return {}
        if "://" not in self.library.location:
            return self.library.folders.scan()
        if time.monotonic() - self._far[0] > _FAR_S:
            self._far = (time.monotonic(), self.library.folders.scan())
        return self._far[1]

    def version(self, name: str) -> str | None:
        """What `Engine` asks before each answer."""
        if name in self._held or self.library is None:
            return "held"
        local = "://" not in self.library.location
        return self.library.folders.version(name) if local else self.versions().get(name)

    def manifests(self) -> dict[str, Manifest]:
        """The readable prompts of this backbone, by name, in order; each is read again only where it changed."""
        versions = self.versions()
        current: dict[str, tuple[str, Manifest]] = {}
        for name in sorted(versions):
            old = self._manifests.get(name)
            if old is not None and old[0] == versions[name]:
                current[name] = old
                continue
            assert self.library is not None
            try:
                current[name] = (versions[name], read_manifest(self.library.folders, name))
            except SoftpromptError:  # removed since, or damaged: `softprompt library verify` says which
                continue
        self._manifests = current
        return {name: m for name, (_, m) in current.items() if _fits(m, self._backbone)}

    def names(self) -> list[str]:
        """All names that can be asked for."""
        return [*self.manifests(), *self._held]

    def models(self) -> Models:
        """`GET /v1/models`: the prompts, and the bare backbone last."""
        found = [_model(manifest) for manifest in self.manifests().values()]
        found += [
            Model(
                id=name,
                task=name,
                prompt_length=one.prompter.prompt_length,
                labels=list(one.labels) if one.labels else None,
            )
            for name, one in self._held.items()
        ]
        return Models(data=[*found, Model(id=self._backbone.name)])

    def knows(self, name: str) -> bool:
        """Whether a name is a prompt now."""
        return name in self._held or (self.library is not None and self.version(name) is not None)

    # -- the explorer -----------------------------------------------------------------------------------------------

    def explorer(self) -> Explorer:
        """What the page draws: prompts with their facts, the map of task embeddings, their similarities."""
        manifests = self.manifests()
        mapped, similarity_NN, place_N2, explained = self._mapped(manifests)
        where = dict(zip(mapped, place_N2.tolist(), strict=True))
        curves = self._curves()
        points = [_point(m, where.get(name), curves.get(name, [])) for name, m in manifests.items()]
        return Explorer(
            backbone=self._backbone.name, prompts=points, mapped=mapped, explained=explained,
            similarity=np.round(similarity_NN, 4).tolist(),
            left_out=max(0, sum(m.has_task_embedding for m in manifests.values()) - len(mapped)),
        )  # fmt: skip

    def _mapped(self, manifests: Mapping[str, Manifest]) -> tuple[list[str], np.ndarray, np.ndarray, float | None]:
        versions = {name: self._manifests[name][0] for name in manifests}
        if self._map is None or self._map[0] != versions:
            self._map = (versions, self._drawn(manifests))
        return self._map[1]

    def _drawn(self, manifests: Mapping[str, Manifest]) -> tuple[list[str], np.ndarray, np.ndarray, float | None]:
        names, vectors = [], []
        for name in [name for name, m in manifests.items() if m.has_task_embedding][:MOST_MAPPED]:
            assert self.library is not None
            folders = self.library.folders
            try:
                found = read_steadily(folders, name, partial(read_task_vectors, folders))
            except SoftpromptError:
                continue
            names.append(name)
            vectors.append(found[DEFAULT_METRIC].double().numpy())
        if not names:
            return [], np.zeros((0, 0)), np.zeros((0, 2)), None
        vector_NH = np.stack(vectors)
        return names, vector_NH @ vector_NH.T, *map_of(vector_NH)

    def _curves(self) -> dict[str, list[tuple[int, float]]]:
        """By prompt name, (step, validation score) of the training that made it, where its run folder is known."""
        if self._runs is None:
            return {}
        found = {}
        for path in sorted((self._runs / "results").glob("*.json"))[:1000]:
            try:
                result = artifacts.read_json(path)
                task, _, seed = str(result["name"]).rpartition("-")
                curve = [(int(p["step"]), float(p["score"])) for p in result["curve"] if "rows" not in p]
            except (SoftpromptError, KeyError, TypeError, ValueError):
                continue
            found[f"{task}@{seed}"] = curve
        return found


def map_of(vector_NH: np.ndarray) -> tuple[np.ndarray, float | None]:
    """Places [N, 2] in -1..1 in the plane of most variance of unit vectors, and the share of the variance it keeps."""
    if len(vector_NH) == 1:
        return np.zeros((1, 2)), None
    length = np.linalg.norm(vector_NH, axis=1, keepdims=True)
    unit_NH = vector_NH / np.where(length > 0, length, 1.0)
    left, sizes, _ = np.linalg.svd(unit_NH - unit_NH.mean(0), full_matrices=False)
    place_N2 = np.zeros((len(vector_NH), 2))
    place_N2[:, : min(2, len(sizes))] = (left * sizes)[:, :2]
    largest = np.abs(place_N2).max()
    total = float((sizes**2).sum())
    return place_N2 / (largest or 1.0), float((sizes[:2] ** 2).sum()) / total if total else None


def _fits(manifest: Manifest, backbone: Backbone) -> bool:
    return fits(manifest, backbone)  # type: ignore[arg-type]  # it has what an entry has


def _words(manifest: Manifest) -> tuple[list[str], list[str] | None, str | None]:
    try:
        wording = wording_of(manifest)
    except SoftpromptError:
        wording = None
    if wording is None:
        return [], None, None
    names = wording.labels or wording.label_words
    return list(wording.columns), list(names) if names else None, wording.template


def _model(manifest: Manifest) -> Model:
    columns, labels, _ = _words(manifest)
    return Model(
        id=manifest.name, task=manifest.task, columns=columns, labels=labels, scores=dict(manifest.scores),
        prompt_length=manifest.prompt_length, verified=manifest.verified, licence=manifest.licence,
    )  # fmt: skip


def _point(manifest: Manifest, place: list[float] | None, curve: list[tuple[int, float]]) -> Point:
    columns, labels, template = _words(manifest)
    same = ("name", "task", "score", "prompt_length", "steps", "best_step", "seed", "licence", "origin", "verified", "created",
            "command")  # fmt: skip
    x, y = place if place is not None else (None, None)
    return Point(
        **{name: getattr(manifest, name) for name in same}, scores=dict(manifest.scores), columns=columns, labels=labels,
        template=template, curve=curve, x=x, y=y,
    )  # fmt: skip
