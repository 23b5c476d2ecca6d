"""The quickstart end to end on a tiny backbone and local files."""

import json

import pytest
from tests.support.models import corpus, tiny_backbone

from softprompt.errors import UsageError
from softprompt.library.store import Library
from softprompt.quickstart import QuickstartSettings, quickstart
from softprompt.report.quickstart import table_csv
from softprompt.training.settings import TrainSettings

TRAIN = TrainSettings(
    steps=4, batch_size=4, prompt_length=3, optimizer="adam", learning_rate=0.05, eval_every=2, embedding_step=2,
    max_target_tokens=4, dropout=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("t5")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three tasks in the user's own columns, each a folder of two files."""
    root = tmp_path_factory.mktemp("data")
    for t, word in enumerate(("film", "story", "actor")):
        folder = root / f"about_{word}"
        folder.mkdir()
        for split, rows in (("train", 24), ("validation", 20)):
            lines = [
                json.dumps({"text": text, "label": "yes" if word in text else "no"})
                for text in corpus(rows, seed=10 * t + len(split))
            ]
            (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return root


def settings(out, data, **changes):
    options = {
        "out": out, "data": data, "sources": ("about_film", "about_story"), "targets": ("about_actor",),
        "source_train": TRAIN, "target_train": TRAIN, "embedding_runs": 1, **changes,
    }  # fmt: skip
    return QuickstartSettings(**options)


def test_everything_is_made(backbone, data, tmp_path):
    seen = []

    def phases(name, runs):
        seen.append((name, runs))

    result = quickstart(backbone, settings(tmp_path / "out", data), phases=phases)
    assert seen == [("sources", 2), ("first", 3), ("transfer", 3)]
    (row,) = result.table
    assert row["target"] == "about_actor"
    assert {"scratch", "best_of_top_k", "weighted_average", "gain", "delivered", "seconds"} <= row.keys()
    for name in ("report", "heatmap", "table", "results"):
        assert (tmp_path / "out").joinpath(result.files[name].split("/")[-1]).stat().st_size > 100
    page = (tmp_path / "out" / "report.html").read_text()
    assert "about_actor" in page
    assert len(result.examples) == 5
    assert {row["gold"] for row in result.examples} <= {"yes", "no"}
    assert result.examples[0]["text"] in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert 'src="http' not in page
    library = Library(tmp_path / "out" / "library")
    assert sorted(e.task for e in library.list()) == ["about_actor", "about_film", "about_story"]
    assert {e.train_rows for e in library.list()} == {24}, "delivered prompts tell their rows as source prompts do"
    assert library.verify() == {}
    plain = json.loads((tmp_path / "out" / "results.json").read_text())
    assert plain["targets"][0]["facts"]["validation_fingerprint"]


@pytest.fixture(scope="module")
def released(backbone, data, tmp_path_factory):
    """The library of a quickstart that trained its own source prompts."""
    out = tmp_path_factory.mktemp("one")
    quickstart(backbone, settings(out, data))
    return Library(out / "library")


@pytest.mark.slow
def test_released_prompts_are_used(backbone, data, released, tmp_path):
    seen = []
    result = quickstart(
        backbone, settings(tmp_path / "two", data), released=released, phases=lambda name, runs: seen.append(name)
    )
    assert seen == ["first", "transfer"], "no source prompt is tuned again"
    assert result.trained_sources == []


@pytest.mark.slow
def test_a_target_may_be_a_file(backbone, data, released, tmp_path):
    """Tasks by their paths have names of their own, which prompts, rows and reports go by."""
    sources, targets = (str(data / "about_film"),), (str(data / "about_actor"),)
    result = quickstart(
        backbone, settings(tmp_path / "three", None, sources=sources, targets=targets), released=released
    )
    assert result.trained_sources == []
    assert [row["target"] for row in result.table] == ["about_actor"]
    assert f"softprompt search {targets[0]} --library" in result.next[1]


@pytest.mark.slow
def test_resuming_a_finished_quickstart_trains_nothing(backbone, data, tmp_path):
    one = quickstart(backbone, settings(tmp_path / "out", data))
    again = quickstart(backbone, settings(tmp_path / "out", data, resume=True))
    assert [r["scratch"] for r in one.table] == [r["scratch"] for r in again.table]


def test_a_task_cannot_be_source_and_target(data, tmp_path):
    with pytest.raises(UsageError, match="about_film cannot be source and target"):
        settings(tmp_path, data, targets=("about_film",))


def test_table_csv_keeps_all_columns():
    assert table_csv([{"a": 1}, {"a": 2, "b": 3}]) == "a,b\n1,\n2,3\n"
