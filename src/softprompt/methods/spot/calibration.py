"""What a library knows of the gains of transfer on its backbone, learned from a finished study.

A calibration is a small JSON file beside the prompt folders: a fit of gains on what is known beforehand, with intervals
(`softprompt.methods.spot.gains`), and the study it comes from. It belongs to one backbone.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from softprompt.errors import CorruptArtifactError, IncompatibleBackboneError, UsageError
from softprompt.library.beside import CALIBRATION, sealed, unsealed
from softprompt.library.manifest import BackboneIdentity, installed_versions
from softprompt.library.store import Library
from softprompt.methods.spot.gains import FEATURES, LEVEL, LOSS, GainFit, GainModel

_COMPARED = ("steps", "batch_size", "prompt_length", "optimizer", "learning_rate", "embedding_step")
# Of those, what the similarities themselves depend on.
_EMBEDDED = ("prompt_length", "embedding_step")
# Measuring the loss of every source prompt is worth its time where it narrows the interval at least to this share.
_WORTH = 0.98


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a study says of gains on its backbone.

    Attributes:
        backbone_name: for people.
        backbone_fingerprint: what it belongs to.
        study: name of the study.
        protocol: ``halves`` (checkpoints chosen on one half of validation, scores of the other) or ``paper``.
        sources: source tasks.
        targets: target tasks.
        seeds: of sources and transfers.
        embedding_step: the step of the task embeddings.
        recipe: resolved settings of the target runs.
        data: fingerprints of the training and validation rows, by task.
        models: one a set of features, the cheaper first.
        command: what made it.
        created: UTC time, ISO 8601.
        versions: of the packages that made it.
    """

    backbone_name: str
    backbone_fingerprint: str
    study: str
    protocol: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    seeds: tuple[int, ...]
    embedding_step: int
    recipe: Mapping[str, Any]
    data: Mapping[str, Mapping[str, str]]
    models: tuple[GainModel, ...]
    command: str = ""
    created: str = field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    )
    versions: Mapping[str, str] = field(default_factory=installed_versions)

    @property
    def wants_losses(self) -> bool:
        """Whether the loss of untuned source prompts on the target's rows would sharpen its predictions noticeably."""
        free, fullest = self.models[0], self.models[-1]
        return LOSS in fullest.features and fullest.points.half_width(LEVEL) <= _WORTH * free.points.half_width(LEVEL)

    def model(self, known: Collection[str]) -> GainModel:
        """The model with the most features among those that are known.

        Raises:
            UsageError: every model needs a feature that is not known.
        """
        usable = [model for model in self.models if set(model.features) <= set(known)]
        if not usable:
            needed = ", ".join(self.models[0].features)
            raise UsageError(
                f"gains are predicted from {needed}; only {', '.join(sorted(known)) or 'nothing'} is known."
            )
        return max(usable, key=lambda model: len(model.features))

    def check_backbone(self, name: str, fingerprint: str | None) -> None:
        """Refuse another backbone.

        Raises:
            IncompatibleBackboneError: it is another one, or of unknown fingerprint.
        """
        if fingerprint != self.backbone_fingerprint:
            raise IncompatibleBackboneError(
                f"the calibration is of backbone {self.backbone_name} ({self.backbone_fingerprint[:12]}) and not of "
                f"{name} ({(fingerprint or 'no fingerprint')[:14]}): make one from a study on that backbone with "
                "'softprompt library calibrate'."
            )

    def misfit(self, backbone: BackboneIdentity, train: Any) -> str:
        """Why its predictions would say nothing of a transfer, in one sentence; empty where they do say something.

        Args:
            backbone: of the transfer.
            train: the transfer's ``TrainSettings``; prompt length and embedding step must be the study's.
        """
        try:
            self.check_backbone(backbone.name, backbone.fingerprint)
        except IncompatibleBackboneError as error:
            return str(error)
        other = "; ".join(self.differences(train, _EMBEDDED))
        return f"the calibration was made with other task embeddings ({other})." if other else ""

    def differences(self, train: Any, names: Sequence[str] = _COMPARED) -> list[str]:
        """How a transfer's settings differ from the study's where gains depend on it, e.g. ``steps 400, not 100``.

        Args:
            train: the transfer's ``TrainSettings``.
            names: the settings to compare.
        """
        return [
            f"{name} {getattr(train, name)}, not {self.recipe[name]}"
            for name in names
            if name in self.recipe and self.recipe[name] != getattr(train, name)
        ]

    def remarks(self, target: str, train: Any = None) -> list[str]:
        """Sentences on why a prediction may be worth less, or more, than its interval says; none where all is as it was.

        Args:
            target: name of the task.
            train: the transfer's ``TrainSettings``; None where none is planned.
        """
        told = []
        if target in self.targets:
            told.append(
                f"{target} was a target of study '{self.study}' itself: its prediction is not of an unseen task."
            )
        differences = [] if train is None else self.differences(train)
        if differences:
            other = "; ".join(differences)
            told.append(f"the calibration was made with other settings ({other}): its interval may not hold.")
        return told

    def about(self, *, losses: bool = False) -> str:
        """One line on what is predicted, where from and how well, of the fit with or without untuned losses."""
        points = self.models[-1 if losses else 0].points
        return (
            "predicted gain: points of one run over the mean from scratch; "
            f"study '{self.study}', {points.pairs} pairs on {points.targets} targets, {self.recipe.get('steps')} steps; "
            f"its {100 * LEVEL:.0f} % intervals held {100 * points.coverage[str(LEVEL)]:.0f} % on targets left out."
        )

    def to_bytes(self) -> bytes:
        """The file's content, with a digest of its own over everything else in it."""
        return sealed(asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes, path: str) -> Calibration:
        """Read and check a calibration.

        Raises:
            CorruptArtifactError: it is not one that this version reads, or not what was written.
        """
        content = unsealed(data, path)
        try:
            models = tuple(_model(model) for model in content.pop("models"))
            content |= {name: tuple(content[name]) for name in ("sources", "targets", "seeds")}
            if not models:
                raise ValueError("no model")
            return cls(**content, models=models)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptArtifactError(f"{path} lacks what a calibration holds ({error}); make it again.") from error


def _model(plain: Mapping[str, Any]) -> GainModel:
    fits = {
        kind: GainFit(**{**plain[kind], "weights": tuple(float(w) for w in plain[kind]["weights"])})
        for kind in ("points", "relative")
        if plain[kind] is not None
    }
    features = tuple(str(name) for name in plain["features"])
    for name in features:
        if name not in FEATURES:
            raise ValueError(f"unknown feature {name!r}")
    if any(len(fit.weights) != len(features) for fit in fits.values()):
        raise ValueError("weights and features differ in number")
    return GainModel(features=features, points=fits["points"], relative=fits.get("relative"))


def find_calibration(library: Library) -> Calibration | None:
    """The calibration of a library; None where it has none.

    Raises:
        CorruptArtifactError: it is not what was written.
    """
    data = library.folders.read_beside(CALIBRATION)
    return None if data is None else Calibration.from_bytes(data, library.folders.show(CALIBRATION))


def calibration_for(library: Library, backbone: BackboneIdentity) -> Calibration | None:
    """The calibration of a library for a backbone; None where it has none.

    Raises:
        CorruptArtifactError: it is not what was written.
        IncompatibleBackboneError: it is of another backbone.
    """
    found = find_calibration(library)
    if found is not None:
        found.check_backbone(backbone.name, backbone.fingerprint)
    return found


def keep_calibration(library: Library, calibration: Calibration) -> str:
    """Write a calibration into a library, replacing the one that is there; returns its place."""
    library.folders.write_beside(CALIBRATION, calibration.to_bytes())
    return library.folders.show(CALIBRATION)
