"""Options of executors as text: read, checked, and those that the executors really take."""

from __future__ import annotations

import inspect

import pytest

from softprompt.errors import SoftpromptError
from softprompt.study.clusters import RayExecutor, SlurmExecutor
from softprompt.study.executor_options import executor_options, known_options
from softprompt.study.executors import ProcessExecutor, SerialExecutor


@pytest.mark.parametrize(
    ("name", "made"),
    [("serial", SerialExecutor), ("processes", ProcessExecutor), ("ray", RayExecutor), ("slurm", SlurmExecutor)],
)
def test_what_is_known_is_what_the_executor_takes(name: str, made: type) -> None:
    taken = set() if name == "serial" else set(inspect.signature(made).parameters) - {"folder", "parameters"}
    assert {key for key in known_options(name) if name != "slurm" or key in taken} == taken


def test_values_become_what_the_executor_takes() -> None:
    given = ["devices=cuda:0, cuda:1", "threads=3"]
    assert executor_options("processes", given, 2) == {"devices": ["cuda:0", "cuda:1"], "threads": 3, "workers": 2}
    assert executor_options("ray", ["gpus=0.5", "address="]) == {"gpus": 0.5, "address": ""}
    given = ["workers=4", "timeout-min=60", "slurm_partition=gpu", "gpus_per_node=1", 'slurm_setup=["module load x"]']
    assert executor_options("slurm", [*given, "slurm_exclusive=true", "slurm_time=01:00:00"]) == {
        "workers": 4,
        "parameters": {
            "timeout_min": 60, "slurm_partition": "gpu", "gpus_per_node": 1, "slurm_setup": ["module load x"],
            "slurm_exclusive": True, "slurm_time": "01:00:00",
        },
    }  # fmt: skip
    assert executor_options("serial", []) == {}


@pytest.mark.parametrize(
    ("executor", "given", "workers", "message"),
    [
        ("ray", ["gpu=1"], None, "'gpu': did you mean gpus"),
        ("slurm", ["partition=gpu"], None, "did you mean slurm_partition"),
        ("serial", ["gpus=1"], None, "serial executor takes no option"),
        ("serial", [], 2, "serial executor takes no option"),
        ("ray", ["gpus"], None, "KEY=VALUE, got 'gpus'"),
        ("ray", ["workers=2"], 3, "workers is set twice"),
        ("processes", ["workers=0"], None, "workers takes a whole number of at least 1, got '0'"),
        ("processes", ["devices= ,"], None, "devices takes names"),
        ("ray", ["gpus=inf"], None, "gpus takes a number of at least 0"),
        ("slurm", ["timeout_min=1h"], None, "timeout_min takes a whole number"),
        ("slurm", ["slurm_setup=[x"], None, "slurm_setup takes a number, a text or JSON"),
        ("rai", ["gpus=1"], None, "'rai': did you mean ray"),
    ],
)
def test_bad_options_are_refused(executor: str, given: list[str], workers: int | None, message: str) -> None:
    with pytest.raises(SoftpromptError, match=message) as caught:
        executor_options(executor, given, workers)
    assert caught.value.exit_code == 2
