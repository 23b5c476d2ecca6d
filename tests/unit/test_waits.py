"""Every long wait is told: with what is waited for, how much is done, and how much there is; the last call says all."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.models import save_tiny, tiny_backbone
from tests.support.small_tasks import films_task

import softprompt as sp
from softprompt import waits
from softprompt.backbones.load import load_backbone
from softprompt.inference.predict import predict
from softprompt.library.search import search
from softprompt.methods.few_shot import DesignSettings
from softprompt.methods.prompt_design import prompt_design
from softprompt.methods.sharpt.encoders import BackboneEncoder
from softprompt.methods.spot.measured import prompt_losses
from softprompt.prompts.init import InitSettings, initial_prompt
from softprompt.tasks import readers
from softprompt.tasks.contamination import contamination
from softprompt.tasks.rows import BadRows
from softprompt.training.data import task_data
from softprompt.training.settings import TrainSettings, TuneSettings
from softprompt.training.weights.tune import tune_model

SHORT = {"steps": 2, "batch_size": 4, "prompt_length": 3, "eval_every": 2, "embedding_step": 0, "max_target_tokens": 4}


@contextmanager
def listening() -> Iterator[dict[str, list[tuple[int, int]]]]:
    """What is told inside, by its title."""
    told: dict[str, list[tuple[int, int]]] = {}
    with waits.heard(lambda title, done, total: told.setdefault(title, []).append((done, total))):
        yield told
    for title, counts in told.items():
        assert counts[-1][0] == counts[-1][1] > 0, f"{title} did not end: {counts[-1]}"
        before = 0
        for done, total in counts:
            assert before <= done <= total, f"{title} went back: {counts}"
            before = done if done < total else 0  # the same may be waited for again


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("t5")


@pytest.fixture(scope="module")
def task():
    return films_task()


def test_tokenising_and_prompt_tuning_and_what_stands_beside_the_score(backbone, task):
    from softprompt.api import tune_tasks

    settings = TrainSettings(**SHORT)
    with listening() as told:
        data = task_data(backbone, task, settings)
        assert set(told) == {"reading rows", "tokenising train rows", "tokenising validation rows"}
        tune_tasks(backbone, [data], settings, compared=True)
    assert {"answering rows", "answering rows from examples"} <= set(told)


def test_a_tuning_of_weights_tells_of_its_validation(task, tmp_path):
    own = tiny_backbone("t5")
    settings = TuneSettings(steps=2, batch_tokens=64, eval_every=1, max_target_tokens=4)
    data = task_data(own, task, settings)
    with listening() as told:
        tune_model(own, data.run("films", 1), settings, tmp_path / "run")
    # After each of two steps, and once more at the end for the best weights.
    assert told["answering rows"].count((4, 4)) == 3


def test_answers_few_shot_prompts_encodings_and_predictors(backbone, task):
    settings = TrainSettings(**SHORT)
    data = task_data(backbone, task, settings)
    prompts = [initial_prompt(backbone, InitSettings(), 3, 1)]
    with listening() as told:
        predict(backbone, None, ["a film", "a story"])
        prompt_design(backbone, task, DesignSettings(shots=2))
        BackboneEncoder(backbone).encode(["a film", "a story"])
        prompt_losses(backbone, prompts, data.train, [0, 1, 2])
    wanted = {
        "answering rows",
        "answering rows from examples",
        "encoding inputs (batches)",
        "measuring prompts on rows",
    }
    assert wanted <= set(told)


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.csv.gz", "rows.parquet"])
def test_reading_a_long_file(name, tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "TOLD_LINES", 50)
    path = tmp_path / name
    if name.endswith("parquet"):
        pandas = pytest.importorskip("pandas")
        pandas.DataFrame({"text": ["a"] * 600}).to_parquet(path)
    else:
        lines = ["text,label", *["a film,good"] * 400] if "csv" in name else ['{"text": "a film"}'] * 400
        raw = ("\n".join(lines) + "\n").encode()
        path.write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    with listening() as told:
        assert len(list(readers.read_rows(path, BadRows()))) == (600 if name.endswith("parquet") else 400)
    (title,) = told
    assert title.startswith(f"reading {name}")
    assert len(told[title]) > 2


def test_a_file_that_is_left_early_ends_its_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "TOLD_LINES", 50)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a film"}\n' * 400)
    with listening():
        rows = readers.read_rows(path, BadRows())
        for _ in range(120):
            next(rows)
        rows.close()


def test_loading_and_hashing_weights(tmp_path):
    folder = save_tiny("t5", tmp_path / "backbone")
    with listening() as told:
        load_backbone(folder)
    assert {"loading weights", "hashing weights (MB), once"} <= set(told)


def test_bars_of_python_are_quiet_by_a_switch_and_are_not_shown_twice(capsys, monkeypatch):
    monkeypatch.setattr(waits, "DELAY", 0)

    def wait() -> None:
        for _ in waits.each("waiting", range(3)):
            pass

    with waits.shown(False):
        wait()
    assert not capsys.readouterr().err
    with waits.shown():
        wait()
    assert "waiting" in capsys.readouterr().err
    with waits.heard(lambda *_: None), waits.shown():
        wait()
    assert not capsys.readouterr().err


def test_no_wait_is_left_to_a_bar_of_its_own():
    """A bar that some code opens by itself stands beside those of the command line and of Python's verbs."""
    package = Path(sp.__file__).parent
    own = {"waits.py", "bars.py", "cli/progress.py", "backbones/quiet.py"}
    for file in package.rglob("*.py"):
        if str(file.relative_to(package)) not in own:
            assert not any(bar in file.read_text() for bar in ("tqdm(", "rich.progress")), file


def test_reading_and_checking_a_library(backbone, task, tmp_path):
    library = sp.Library(tmp_path)
    library.add(sp.tune(backbone, task, progress=False, **{**SHORT, "embedding_step": 2}))
    again = sp.Library(tmp_path)
    with listening() as told:
        again.list()
        again.verify()
        search(again, [library.get("films@1").task_embedding()], exclude_tasks=set())
    assert {"reading prompts", "checking prompts"} <= set(told)


def test_comparing_rows_of_two_tasks(task):
    with listening() as told:
        contamination(task.split("validation"), task.split("train"))
    assert "comparing rows" in told
