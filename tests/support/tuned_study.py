"""A small study with the real runner on a tiny random T5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.models import save_tiny

from softprompt.study.run import run_study
from softprompt.study.settings import Study, study_of


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("t5", tmp_path_factory.mktemp("models") / "tiny")


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
    folder = tmp_path_factory.mktemp("ledgers") / "together"
    summary = run_study(made(backbone), folder)
    assert summary.complete, summary.failed
    return folder


def vars_of(study: Study) -> dict[str, Any]:
    """The settings of a study as keyword arguments of `made`."""
    plain = study.plain()
    return {**plain, "backbone": Path(plain["backbone"])}
