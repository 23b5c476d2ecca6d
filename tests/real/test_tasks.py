"""Every task of the real data folder: counts, labels, the round trip of gold targets, and what only real rows show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import real_data_folder

from softprompt.tasks.catalog import load_task, names_in_folder
from softprompt.tasks.check import check_task
from softprompt.tasks.contamination import contamination
from softprompt.tasks.mixture import MIXTURES

FOLDER = real_data_folder()
NAMES = names_in_folder(FOLDER) if FOLDER is not None else []


@pytest.fixture(scope="module")
def stated(real_data: Path) -> Mapping[str, Any]:
    """What SOURCES.json beside the files says of each task."""
    return {entry["task"]: entry for entry in json.loads((real_data / "SOURCES.json").read_text())["tasks"]}


@pytest.mark.parametrize("name", NAMES)
def test_a_real_task_passes_its_check(name: str, real_data: Path, stated: Mapping[str, Any]) -> None:
    task = load_task(name, real_data)
    report = check_task(task)
    assert report["ok"], report["problems"]
    validation = report["splits"]["validation"]
    assert validation["gold_scores"]["score"] == pytest.approx(100.0)
    for split in ("train", "validation"):
        found, expected = report["splits"][split], stated[name]["label_counts"][split]
        if name == "wsc":
            assert found["rows"] == (expected["1"] if split == "train" else sum(expected.values()))
            continue
        assert found["rows"] == stated[name]["kept"][split]
        if task.labels is not None and expected is not None:
            assert found["labels"] == {task.labels[int(index)]: count for index, count in expected.items()}


def test_glue_rte_is_rte_in_another_form(real_data: Path) -> None:
    ours, other = (load_task(name, real_data).split("validation").examples for name in ("rte", "glue_rte"))
    assert [e.targets for e in ours] == [e.targets for e in other]
    assert other[0].inputs.startswith("rte sentence1: ")


def test_race_is_its_two_levels(real_data: Path) -> None:
    sizes = {name: len(load_task(name, real_data).split("validation")) for name in ("race", "race_middle", "race_high")}
    assert sizes["race"] == sizes["race_middle"] + sizes["race_high"]
    assert sizes["race_middle"] == 1436  # RACE-middle's whole development set


def test_wsc_pronouns_stand_marked_in_every_text(real_data: Path) -> None:
    for split in ("train", "validation"):
        for example in load_task("wsc", real_data).split(split).examples:
            assert example.inputs.startswith("wsc: ")
            assert example.inputs.count("*") == 2


def test_real_targets_of_spot_are_there_and_sources_as_far_as_stated(real_data: Path) -> None:
    here = set(NAMES)
    assert set(MIXTURES["spot_targets"].tasks) <= here
    absent = set(MIXTURES["spot_sources"].tasks) - here - {"race_middle"}
    assert absent == {"c4", "doc_nli", "record", "cxc"}


def test_contamination_between_real_sets_is_found_quickly(real_data: Path) -> None:
    rte, stsb = load_task("rte", real_data), load_task("stsb", real_data)
    assert contamination(rte.split("validation"), rte.split("train")).exact == 0
    # One pair of STS-B stands in both of its splits with other scores.
    assert contamination(stsb.split("validation"), stsb.split("train")).exact >= 1


def test_official_multirc_groups(real_data: Path) -> None:
    examples = load_task("multirc", real_data).split("validation").examples
    assert len({str(e.extra["group"]) for e in examples}) == 953  # questions of the official development set
