"""A study from its file to its ledger, with an analytic trainer: what is made, what is not made again, who may."""

import dataclasses
import threading
from pathlib import Path

import pytest
from tests.support.analytic import AnalyticRunner
from tests.support.small_study import RUNNER, contents, made, run

from softprompt.analysis.read import collect
from softprompt.artifacts import StorageError
from softprompt.errors import CorruptArtifactError, IncompatibleBackboneError, Interrupted, SoftpromptError, UsageError
from softprompt.study.build import build_grid
from softprompt.study.executors import ProcessExecutor
from softprompt.study.ledger import Ledger
from softprompt.study.run import RunProgress, facts_of, open_study, run_study


def test_every_cell_once(tmp_path: Path) -> None:
    study = made()
    # 4 sources, 4 baselines, 8 transfers; an embedding for each of the first 8, an evaluation for the last 12.
    assert run(study, tmp_path)[0] == 4 + 4 + 8 + 8 + 12
    assert run(study, tmp_path) == (0, 0)
    assert not list((tmp_path / "packs").glob("*"))
    results = collect(study, Ledger(tmp_path), AnalyticRunner().facts(study))
    scores = results.transfers_STR()
    assert scores.shape == (2, 2, 2)
    # Near sources help more: alpha is apple's relative, beta is berry's.
    assert (scores[0, 0] > scores[1, 0]).all()
    assert (scores[1, 1] > scores[0, 1]).all()


def test_a_changed_setting_redoes_what_depends_on_it(tmp_path: Path) -> None:
    run(made(), tmp_path)
    # Other target steps: baselines and transfers and their evaluations, no source and no embedding.
    assert run(made(target={"recipe": "spot", "steps": 9, "eval_every": 4}), tmp_path)[0] == 4 + 8 + 12
    # Another embedding step: only embeddings.
    assert run(made(embedding={"step": 3}), tmp_path)[0] == 8
    # One more target: its two baselines, embeddings, four transfers, six evaluations.
    assert run(made(targets=["apple", "berry", "cherry"]), tmp_path)[0] == 2 + 2 + 4 + 6
    # Another learning rate of source tuning: sources, their embeddings, transfers and evaluations of those.
    source = {"recipe": "spot", "steps": 12, "eval_every": 4, "learning_rate": 0.1}
    assert run(made(source=source), tmp_path)[0] == 4 + 4 + 8 + 8
    # Another name or grouping changes nothing.
    assert run(made(name="other", title="x", group=1), tmp_path) == (0, 0)


def test_strategies_that_tune_on_their_own(tmp_path: Path) -> None:
    study = made(strategies={"weighted_average": [2], "multitask_mixture": [2], "best_of_top_k": [1]})
    run(study, tmp_path)
    results = collect(study, Ledger(tmp_path), AnalyticRunner().facts(study))
    assert {(s.strategy, s.k, s.target, s.seed) for s in results.strategies} == {
        (name, 2, target, seed)
        for name in ("weighted_average", "multitask_mixture")
        for target in study.targets
        for seed in (0, 1)
    }


def test_other_embedding_steps_and_scratch_seeds(tmp_path: Path) -> None:
    study = made(embedding={"step": 5, "other_steps": [2, 20]}, scratch_seeds=3)
    run(study, tmp_path)
    results = collect(study, Ledger(tmp_path), AnalyticRunner().facts(study))
    assert set(results.other_embeddings) == {"2", "20", "best checkpoint"}
    assert len(results.other_embeddings["20"]) == 8
    assert [r.seed for r in results.scratch("apple")] == [0, 1, 2, 3, 4]
    assert results.scratch_N("apple").shape == (5,)


def test_halves_protocol_reports_the_other_half(tmp_path: Path) -> None:
    run(made(), tmp_path)
    study = made(protocol="halves")
    assert run(study, tmp_path)[0] == 4 + 8 + 12  # sources and embeddings are as they were
    results = collect(study, Ledger(tmp_path), AnalyticRunner().facts(study))
    run0 = results.runs[0]
    assert run0.halves is not None
    assert (run0.score, results.report_half) == (run0.halves[1], 1)


@pytest.mark.slow
def test_processes_give_the_same_ledger(tmp_path: Path) -> None:
    study = made()
    run(study, tmp_path / "serial")
    executor = ProcessExecutor(workers=2, threads=1)
    try:
        summary = run_study(study, tmp_path / "two", executor, runner=RUNNER)
    finally:
        executor.close()
    assert summary.complete
    assert contents(tmp_path / "serial") == contents(tmp_path / "two")


def test_a_cell_that_fails_leaves_the_others(tmp_path: Path) -> None:
    summary = run_study(made(), tmp_path, runner=RUNNER, runner_options={"fail": "beta.1"})
    assert len(summary.failed) == 1
    assert summary.failed[0].startswith("beta.1: cell beta.1 was made to fail")
    # Missing: the source, its embedding, its two transfers and their evaluations.
    assert summary.cells - summary.done == 6
    study, ledger, facts = open_study(tmp_path)
    results = collect(study, ledger, facts_of(study, facts))
    assert len(results.runs) == 10
    assert run_study(made(), tmp_path, runner=RUNNER).complete


def test_interrupted_and_resumed(tmp_path: Path) -> None:
    study = made()
    events: list[RunProgress] = []

    def observe(progress: RunProgress) -> None:
        events.append(progress)
        if progress.done >= 10:
            (tmp_path / "stop-now").touch()

    with pytest.raises(Interrupted, match="run the same study again"):
        run_study(study, tmp_path, runner=RUNNER, observer=observe)
    (tmp_path / "stop-now").unlink()
    assert 0 < len(contents(tmp_path)) < 36
    run(study, tmp_path)
    run(study, tmp_path / "whole")
    assert contents(tmp_path) == contents(tmp_path / "whole")
    assert events[0].event == "starting"
    assert events[-1].rate > 0
    assert "of 36 cells" in events[-1].line()


def test_two_runs_at_once_on_one_ledger(tmp_path: Path) -> None:
    started, go_on = threading.Event(), threading.Event()

    def hold(progress: RunProgress) -> None:
        started.set()
        go_on.wait(90)

    thread = threading.Thread(target=lambda: run_study(made(), tmp_path, runner=RUNNER, observer=hold))
    thread.start()
    try:
        assert started.wait(90)
        with pytest.raises(UsageError, match=r"is in use: process \d+ .* study 'tiny'"):
            run_study(made(), tmp_path, runner=RUNNER)
    finally:
        go_on.set()
        thread.join()
    assert run(made(), tmp_path) == (0, 0)


def test_a_ledger_of_another_backbone(tmp_path: Path) -> None:
    run(made(), tmp_path)
    with pytest.raises(IncompatibleBackboneError, match="holds cells of backbone"):
        run_study(made(), tmp_path, runner=RUNNER, runner_options={"backbone": "other"})


def test_a_full_disk_ends_the_run_with_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> bool:
        raise StorageError("cell.json (10 bytes) was not written: the disk is full; free some space.")

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "write", full)
        with pytest.raises(StorageError, match="the disk is full"):
            run_study(made(), tmp_path, runner=RUNNER)
    run(made(), tmp_path)


def test_a_spoilt_cell_is_named(tmp_path: Path) -> None:
    study = made()
    run(study, tmp_path)
    grid = build_grid(study, AnalyticRunner().facts(study))
    cell = grid.named("source", "alpha.0")
    path = Ledger(tmp_path).path("source", cell.key)
    tensors = path / "tensors.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-3] ^= 1
    tensors.write_bytes(bytes(data))
    with pytest.raises(CorruptArtifactError, match="delete that folder and its cell is done again"):
        Ledger(tmp_path).tensors("source", cell.key)
    (path / "cell.json").write_text("{}")
    with pytest.raises(CorruptArtifactError, match="delete that folder"):
        Ledger(tmp_path).read("source", cell.key)


def test_the_first_result_of_a_cell_stays(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    identity = {"kind": "baseline", "seed": 0}
    from softprompt.study.ledger import key_of

    key = key_of(identity)
    assert ledger.write("baseline", key, identity, {"score": 1.0})
    assert not ledger.write("baseline", key, identity, {"score": 2.0})
    assert ledger.read("baseline", key).result == {"score": 1.0}
    with pytest.raises(UsageError, match="not that of its identity"):
        ledger.write("baseline", key, {"kind": "baseline", "seed": 1}, {})


def test_open_study_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no study"):
        open_study(tmp_path)
    run(made(), tmp_path)
    run(made(name="other"), tmp_path)
    with pytest.raises(UsageError, match="other, tiny"):
        open_study(tmp_path)
    assert open_study(tmp_path, "other")[0].name == "other"
    assert dataclasses.asdict(open_study(tmp_path, "tiny")[0]) == dataclasses.asdict(made())


def test_errors_are_the_package_s_own(tmp_path: Path) -> None:
    with pytest.raises(SoftpromptError, match="runner 'nowhere:Runner' cannot be made"):
        run_study(made(), tmp_path, runner="nowhere:Runner")
