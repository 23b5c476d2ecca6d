"""The papers' two study files, run to their end on a tiny T5 with a stand-in for the hub on the disk, killed once each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support import stand_in_hub
from tests.support.papers import ROWS, save_spelling_t5, small

from softprompt.study.ledger import Ledger

COMMAND = """
import sys
from pathlib import Path
from tests.support.papers import small
from tests.support.stand_in_hub import patched
from softprompt.study.run import run_study
hub, name, backbone, ledger = sys.argv[1:]
with patched(Path(hub)):
    summary = run_study(small(name, backbone), ledger)
print(f"END {summary.done} {summary.cells} {list(summary.failed)}")
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    stand_in_hub.write(folder, ROWS)
    save_spelling_t5(folder / "t5")
    return folder


def start(hub: Path, name: str, ledger: Path, repo: Path) -> subprocess.Popen[str]:
    env = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(repo), str(repo / "src")]),
        "SOFTPROMPT_DATA": str(hub / "local"), "SOFTPROMPT_CACHE": str(hub / "cache"),
        "HF_DATASETS_CACHE": str(hub / "datasets"), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-c", COMMAND, str(hub), name, str(hub / "t5"), str(ledger)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def cells(ledger: Path) -> int:
    return sum(len(Ledger(ledger).keys(kind)) for kind in Ledger(ledger).kinds())


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["paper", "generic-spot"])
def test_a_papers_study_runs_to_its_end_though_it_is_killed(name: str, hub: Path, tmp_path: Path, repo: Path) -> None:
    ledger = tmp_path / "ledger"
    process = start(hub, name, ledger, repo)
    deadline = time.monotonic() + 1500
    while cells(ledger) < 60:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = cells(ledger)
    told, _ = start(hub, name, ledger, repo).communicate(timeout=2400)
    last = told.strip().splitlines()[-1]
    assert last.startswith("END"), told
    _, done, planned, failed = last.split(" ", 3)
    assert (done, failed) == (planned, "[]")
    assert before < int(planned)

    study = small(name, str(hub / "t5"))
    facts = json.loads((ledger / "studies" / name / "facts.json").read_text())
    assert set(facts["data"]) == set(study.all_tasks)
    assert facts["data"]["c4"]["train_rows"] == ROWS
    sources = {
        Ledger(ledger).read("source", key).provenance["cell"].split(".")[0] for key in Ledger(ledger).keys("source")
    }
    assert sources == set(study.sources)
    if name == "paper":
        assert len(study.sources) + len(study.targets) == 26
        assert len(Ledger(ledger).keys("transfer")) == 160
        assert len(Ledger(ledger).keys("embedding")) == 3 * 26  # steps 1, 2 and 3 of one run each
    else:
        assert len(study.sources) == 14
        assert len(study.all_tasks) > 55
