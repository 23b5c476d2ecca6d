"""A small study with the real runner on a tiny random T5."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from tests.support.models import save_tiny

from softprompt.study.run import run_study
from softprompt.study.settings import Study, study_of


def _once(name: str, make: Callable[[Path], object], temporary: pytest.TempPathFactory) -> Path:
    """A folder that one of all workers makes; nobody writes into it."""
    root = temporary.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    with FileLock(root / f"{name}.lock"):
        if not (root / f"{name}.made").exists():
            make(root / name)
            (root / f"{name}.made").touch()
    return root / name


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _once("tiny-backbone", lambda folder: save_tiny("t5", folder), tmp_path_factory)


def made(backbone: Path, **changes: object) -> Study:
    train = {
        "recipe": "quick", "steps": 4, "batch_size": 4, "prompt_length": 4, "eval_every": 2, "max_input_tokens": 24,
        "warmup_steps": 0, "eval_rows": 8,
    }  # fmt: skip
    values = {
        "name": "real",
        "backbone": str(backbone),
        "dtype": "float32",
        "sources": ["gen_sentiment_film", "pair"],
        "targets": ["gen_sentiment_hotel"],
        "mixtures": {"pair": ["gen_sentiment_film", "gen_paraphrase_sentence"]},
        "seeds": [0, 1],
        "train_rows": 32,
        "validation_rows": 16,
        "source": train,
        "target": train,
        "embedding": {"step": 2, "other_steps": [1]},
        "strategies": {
            "weighted_average": [2],
            "multitask_mixture": [1],
            "best_of_top_k": [1],
            "predictors": ["zero-shot-loss", "loss-decrease-5", "text-similarity", "data-size"],
        },
        **changes,
    }
    return study_of({**values, "backbone": str(backbone)})


@pytest.fixture(scope="module")
def finished(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        summary = run_study(made(backbone), folder)
        assert summary.complete, summary.failed

    kept = _once("tuned-study", make, tmp_path_factory)
    return Path(shutil.copytree(kept, tmp_path_factory.mktemp("ledgers") / "together"))


def vars_of(study: Study) -> dict[str, Any]:
    """The settings of a study as keyword arguments of `made`."""
    plain = study.plain()
    return {**plain, "backbone": Path(plain["backbone"])}
