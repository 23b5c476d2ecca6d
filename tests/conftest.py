"""Shared by all tests: few threads, fixed seeds, no network, the folder of real data where it is present."""

from __future__ import annotations

import os
from pathlib import Path

# Before anything imports torch or transformers.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import hypothesis
import pytest

import softprompt  # noqa: F401  before torch: it holds torch to the level of instructions that SOFTPROMPT_KERNELS names

ROOT = Path(__file__).resolve().parents[1]

hypothesis.settings.register_profile("checks", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("checks")


def real_data_folder() -> Path | None:
    """The folder with real tasks: ``$SOFTPROMPT_DATA``, or ``../shared/data`` beside the repository."""
    for folder in (os.environ.get("SOFTPROMPT_DATA"), str(ROOT.parent / "shared" / "data")):
        if folder and (Path(folder) / "tasks").is_dir():
            return Path(folder)
    return None


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real GLUE and SuperGLUE files; the test is skipped where there is none."""
    folder = real_data_folder()
    if folder is None:
        pytest.skip("no real data: set SOFTPROMPT_DATA or put it into ../shared/data")
    return folder


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the repository."""
    return ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, and say why."""
    import importlib.util

    if any("ray" in item.keywords for item in items) and importlib.util.find_spec("ray") is None:
        skip = pytest.mark.skip(reason="the ray extra is not installed: pip install 'softprompt[ray]'")
        for item in items:
            if item.get_closest_marker("ray"):
                item.add_marker(skip)
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu:
        import torch

        if not torch.cuda.is_available():
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same seeds and at most two threads, whatever ran before it."""
    import random
    import sys

    import numpy as np

    random.seed(0)
    np.random.seed(0)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.default_generator.manual_seed(0)  # `torch.manual_seed` takes milliseconds to ask after all devices
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(0)
        if torch.get_num_threads() > 2:
            torch.set_num_threads(2)
