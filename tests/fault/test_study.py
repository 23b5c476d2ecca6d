"""A study that is killed, loses workers or meets a dead process's lock ends with exactly one result a cell."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.small_study import RUNNER, contents, made, run

from softprompt.study.executor_options import make_executor
from softprompt.study.executors import ProcessExecutor
from softprompt.study.ledger import Ledger
from softprompt.study.run import RunProgress, run_study

ROOT = Path(__file__).resolve().parents[2]
PLACES = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(PLACES)}  # of processes that import the tests' runner

COMMAND = """
import sys
from tests.support.small_study import RUNNER, made
from softprompt.study.run import run_study
if __name__ == "__main__":
    options = {"executor_options": {"workers": 2, "threads": 1}} if sys.argv[2] == "processes" else {}
    run_study(made(), sys.argv[1], sys.argv[2], runner=RUNNER,
              runner_options={"pause": 0.05, "log": sys.argv[1] + "/steps.log"}, **options)
"""


def start(folder: Path, executor: str) -> "subprocess.Popen[bytes]":
    script = folder.parent / "command.py"
    script.write_text(COMMAND)
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), executor],
        env=ENVIRONMENT,
        # A shell's background job ignores Ctrl-C, and so would what it starts: the tests may run in one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def steps_logged(folder: Path) -> int:
    log = folder / "steps.log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def wait_for_steps(folder: Path, count: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 150
    while steps_logged(folder) < count:
        assert process.poll() is None, "the study ended before it could be killed"
        assert time.monotonic() < deadline, "the study did not get going"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The ledger of a run that was never disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "ledger"
    run(made(), folder)
    return contents(folder)


@pytest.mark.parametrize("executor", ["serial", "processes"])
@pytest.mark.slow
def test_kill_9_and_resume(tmp_path: Path, whole: dict[str, object], executor: str) -> None:
    folder = tmp_path / "ledger"
    process = start(folder, executor)
    wait_for_steps(folder, 30, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    partial = contents(folder)
    assert 0 < len(partial) < len(whole)
    assert (folder / "lock.json").exists()  # the dead process's note; its lock is free
    before = steps_logged(folder)
    made_now, _ = run(made(), folder)
    assert made_now == len(whole) - len(partial.keys() & whole.keys())
    assert contents(folder) == whole
    assert not list((folder / "packs").glob("*"))
    assert not (folder / "lock.json").exists()
    if executor == "serial":
        # Steps before the last checkpoint (every 4) of the killed pack were not repeated.
        assert steps_logged(folder) <= before + 4 + (total_pack_steps() - before)


def total_pack_steps() -> int:
    """Steps logged by an undisturbed run: 2 packs of sources x 12, 2 of baselines x 8, 3 of transfers x 8."""
    return 2 * 12 + 2 * 8 + 3 * 8


@pytest.mark.parametrize(("executor", "number"), [("serial", signal.SIGINT), ("processes", signal.SIGTERM)])
@pytest.mark.slow
def test_a_stop_signal_is_obeyed_and_resumable(
    tmp_path: Path, whole: dict[str, object], executor: str, number: int
) -> None:
    for attempt in range(4):  # on a crowded machine the study can be done before the signal arrives
        folder = tmp_path / f"ledger-{attempt}"
        process = start(folder, executor)
        wait_for_steps(folder, 15, process)
        process.send_signal(number)
        if process.wait(timeout=240) != 0:
            break
    assert process.returncode != 0
    run(made(), folder)
    assert contents(folder) == whole


@pytest.mark.slow
def test_a_lost_worker_is_replaced(tmp_path: Path, whole: dict[str, object]) -> None:
    executor = ProcessExecutor(workers=2, threads=1)
    log = tmp_path / "steps.log"
    killed: list[int] = []

    def observe(progress: RunProgress) -> None:
        lines = log.read_text().splitlines() if log.exists() else []
        if not killed and len(lines) > 6:
            killed.append(int(lines[-1].split()[2]))
            os.kill(killed[0], signal.SIGKILL)

    try:
        summary = run_study(
            made(), tmp_path, executor, runner=RUNNER, runner_options={"pause": 0.05, "log": str(log)}, observer=observe
        )
    finally:
        executor.close()
    assert killed
    assert (summary.complete, summary.lost) == (True, 1)
    assert contents(tmp_path) == whole


def test_a_lock_of_a_dead_process_is_taken_over(tmp_path: Path, whole: dict[str, object]) -> None:
    note = {
        "pid": 999_999,
        "host": os.uname().nodename,
        "purpose": "study 'tiny'",
        "started": 0,
        "renewed": time.time(),
    }
    (tmp_path / "lock").touch()
    (tmp_path / "lock.json").write_text(json.dumps(note))
    run(made(), tmp_path)
    # Another machine's note that was renewed a moment ago is believed, one that fell silent is not.
    # How long is told by the file system's clock: those of two machines may be hours apart.
    (tmp_path / "lock.json").write_text(json.dumps({**note, "host": "elsewhere", "renewed": time.time() + 5000}))
    os.utime(tmp_path / "lock.json", (time.time() - 1000,) * 2)
    with Ledger(tmp_path).lock("a test"):
        pass
    from softprompt.errors import UsageError

    (tmp_path / "lock.json").write_text(json.dumps({**note, "host": "elsewhere", "renewed": time.time() - 1000}))
    with pytest.raises(UsageError, match="on elsewhere"), Ledger(tmp_path).lock("a test"):
        pass


def test_submitit_jobs_give_the_same_ledger(tmp_path: Path, whole: dict[str, object]) -> None:
    pytest.importorskip("submitit")
    executor = make_executor("slurm", tmp_path, workers=2, cluster="local", parameters={"timeout_min": 5})
    summary = run_study(made(), tmp_path, executor, runner=RUNNER)
    executor.close()
    assert summary.complete
    assert contents(tmp_path) == whole


@contextlib.contextmanager
def ray_head() -> Iterator[str]:
    """A cluster of this machine alone, in a process group of its own; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="r")  # Ray's sockets need a short path
    command = ["start", "--head", "--block", "--num-cpus=2", f"--port={port}", "--node-ip-address=127.0.0.1",
               "--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=100000000",
               f"--temp-dir={folder}"]  # fmt: skip
    head = subprocess.Popen(
        [str(Path(sys.executable).parent / "ray"), *command],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env=ENVIRONMENT,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert head.poll() is None, "ray start ended"
            time.sleep(0.3)
        yield f"127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.ray
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # Ray leaves processes and sockets to the collector
def test_ray_loses_a_worker_and_gives_the_same_ledger(tmp_path: Path, whole: dict[str, object]) -> None:
    from softprompt.study.clusters import RayExecutor

    log = tmp_path / "steps.log"
    killed: list[int] = []

    def observe(progress: RunProgress) -> None:
        lines = log.read_text().splitlines() if log.exists() else []
        if not killed and len(lines) > 6:
            killed.append(int(lines[-1].split()[2]))
            os.kill(killed[0], signal.SIGKILL)

    with ray_head() as address:
        executor = RayExecutor(workers=2, cpus=1, address=address)
        try:
            summary = run_study(
                made(), tmp_path / "ledger", executor, runner=RUNNER,
                runner_options={"pause": 0.1, "log": str(log)}, observer=observe,
            )  # fmt: skip
        finally:
            executor.close()
    assert killed
    assert (summary.complete, summary.lost >= 1) == (True, True)
    assert contents(tmp_path / "ledger") == whole


DRIVER = """
import sys
from pathlib import Path
from softprompt.study.clusters import RayExecutor
from softprompt.study.run import run_study
from tests.support.small_study import RUNNER, made

executor = RayExecutor(workers=2, cpus=1, address=sys.argv[2])
options = {"pause": 0.05, "log": str(Path(sys.argv[1]).with_name("steps.log"))}
summary = run_study(made(), Path(sys.argv[1]), executor, runner=RUNNER, runner_options=options)
executor.close()
sys.exit(not summary.complete)
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_drivers_killed_on_ray_leave_one_result_a_cell(tmp_path: Path, whole: dict[str, object]) -> None:
    """Up to ten drivers die at moments spread over the work, half of them together with all workers; the last one ends it."""
    log, draw = tmp_path / "steps.log", random.Random(0)
    killed = 0
    with ray_head() as address:
        for number in range(30):
            command = [sys.executable, "-c", DRIVER, str(tmp_path / "ledger"), address]
            driver = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE)
            if killed == 10:
                _, told = driver.communicate(timeout=300)
                assert driver.returncode == 0, told.decode()[-2000:]
                break
            before = log.stat().st_size if log.exists() else 0
            deadline = time.monotonic() + 120
            while driver.poll() is None and time.monotonic() < deadline:
                if log.exists() and log.stat().st_size > before:
                    break
                time.sleep(0.02)
            time.sleep(draw.random() * 0.3)
            if driver.poll() is not None:
                assert driver.returncode == 0, driver.communicate()[1].decode()[-2000:]
                break  # it ended the study
            workers = {int(line.split()[2]) for line in log.read_text()[before:].splitlines() if line.count(" ") >= 2}
            for victim in [driver.pid, *(workers if number % 2 else ())]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
            killed += 1
            driver.communicate()
    assert killed >= 5, "the study ended before its drivers could be killed"
    assert contents(tmp_path / "ledger") == whole
