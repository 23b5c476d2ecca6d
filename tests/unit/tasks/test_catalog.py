"""Names, places, checks and descriptions of tasks; contamination; chat templates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from softprompt.errors import DataError, UnknownNameError, UsageError
from softprompt.tasks import catalog
from softprompt.tasks.catalog import load_task, names_in_folder, task_names
from softprompt.tasks.chat import Chat, with_chat
from softprompt.tasks.check import check_task, gold_answers
from softprompt.tasks.contamination import contamination, content
from softprompt.tasks.declaration import DECLARED, PINS
from softprompt.tasks.example import Example, Split
from softprompt.tasks.forms import ALIASES
from softprompt.tasks.metrics import METRICS
from softprompt.tasks.show import describe, list_mixtures, list_tasks
from softprompt.tasks.sources import HubSource, MemorySource


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rte = [{"premise": f"P{i}.", "hypothesis": "H.", "label": i % 2, "idx": i} for i in range(6)]
    write(tmp_path / "tasks" / "rte", "train.jsonl", rte)
    write(tmp_path / "tasks" / "rte", "validation.jsonl", rte[:4])
    return tmp_path


def test_every_declaration_is_sound() -> None:
    names = [one.name for one in DECLARED]
    assert len(set(names)) == len(names)
    for one in DECLARED:
        assert set(one.metrics) <= set(METRICS), one.name
        assert one.hub or one.remedy, one.name
        task = catalog.make(one, MemorySource(splits={}))
        assert task.labels is None or len(set(task.labels)) == len(task.labels)
    assert all(len(pin) == 40 and int(pin, 16) for pin in PINS.values())
    assert set(ALIASES.values()) <= set(names)


def test_a_folder_is_read_with_and_without_the_tasks_level(data: Path) -> None:
    task = load_task("rte", data)
    assert task.split("train").examples[1].inputs == "rte hypothesis: H. premise: P1."
    assert load_task("rte", data, prefix=False).split("train").examples[1].inputs == "hypothesis: H. premise: P1."
    assert load_task("rte", data / "tasks").split("train").fingerprint == task.split("train").fingerprint
    assert load_task("RTE", data).name == "rte"
    assert names_in_folder(data) == ["rte"]


def test_the_environment_names_a_folder(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTPROMPT_DATA", str(data))
    assert load_task("rte").source.describe()["kind"] == "files"
    monkeypatch.delenv("SOFTPROMPT_DATA")
    assert load_task("rte").source.describe() == {
        "kind": "hub",
        "repo": "aps/super_glue",
        "config": "rte",
        "branch": "main",
        "revision": PINS["aps/super_glue"],
        "splits": {},
    }


def test_unknown_and_absent_tasks(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOFTPROMPT_DATA", raising=False)
    with pytest.raises(UnknownNameError, match="did you mean mnli"):
        load_task("mnly")
    with pytest.raises(DataError, match="has no folder for task 'mnli'; it holds rte"):
        load_task("mnli", data)
    with pytest.raises(UnknownNameError, match="unknown task 'rta'"):
        load_task("rta", data)
    (data / "mine").mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(data)
        with pytest.raises(UnknownNameError, match=r"For what lies here, write \./mine\."):
            load_task("mine")
    for odd in ("..", ".", ""):
        with pytest.raises(UsageError):
            load_task(odd, data)
    with pytest.raises(DataError, match="may not be redistributed"):
        load_task("newsroom").split("train")
    with pytest.raises(DataError, match="not on the hub"):
        load_task("cxc").split("train")


def test_generated_tasks_come_first(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    made = catalog.make(
        catalog.declared("sst2"), MemorySource(splits={"train": [{"sentence": "x", "label": 1, "idx": 0}]})
    )
    monkeypatch.setattr(catalog, "generated", lambda: {"tiny_sentiment": lambda: made})
    assert task_names()[0] == "tiny_sentiment"
    assert load_task("tiny_sentiment") == made
    assert load_task("tiny_sentiment", data) == made


def test_hub_sources_name_a_split_for_validation_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOFTPROMPT_DATA", raising=False)
    source = load_task("yelp_polarity").source
    assert isinstance(source, HubSource)
    assert source.splits["validation"] == ("test",)
    assert "stands in" in load_task("yelp_polarity").note


def test_check_counts_and_proves_the_round_trip(data: Path) -> None:
    report = check_task(load_task("rte", data))
    assert report["ok"]
    assert report["splits"]["train"]["labels"] == {"entailment": 3, "not_entailment": 3}
    assert report["splits"]["validation"]["gold_scores"] == {"accuracy": 100.0, "score": 100.0}
    assert "4 inputs stand in both train and validation." in report["notes"]
    assert any("2,490 rows published" in note for note in report["notes"])


def test_check_reports_what_is_wrong(data: Path) -> None:
    (data / "tasks" / "rte" / "validation.jsonl").write_text('{"premise": "P"}\n')
    report = check_task(load_task("rte", data))
    assert not report["ok"]
    assert "line 1: no column 'hypothesis'; it has premise" in report["problems"][0]


def test_check_finds_metrics_that_do_not_undo_the_form() -> None:
    task = catalog.make(
        catalog.declared("cola"),
        MemorySource(
            splits={
                "train": [],
                "validation": [{"sentence": "x", "label": 1, "idx": 0}, {"sentence": "y", "label": 0, "idx": 1}],
            }
        ),
    )
    from dataclasses import replace

    odd = replace(task, metrics=("accuracy",), labels=("acceptable", "unacceptable"))
    report = check_task(odd, ["validation"])
    assert not report["ok"]
    assert "not 100" in report["problems"][0]


def test_gold_answers_of_wsc_name_another_where_the_referent_is_wrong() -> None:
    rows = [Example(key="w/validation/1", inputs="", targets="Tom", extra={"label": k}) for k in (1, 0)]
    assert gold_answers(load_task("wsc"), rows) == ["Tom", "nobody"]


def test_describe_shows_a_task_as_the_model_sees_it(data: Path) -> None:
    shown = describe(load_task("rte", data))
    assert shown["raw"] == {"premise": "P0.", "hypothesis": "H.", "label": 0, "idx": 0}
    assert shown["inputs"] == "rte hypothesis: H. premise: P0."
    assert shown["targets"] == "entailment"
    assert shown["rows"] == {"train": 6, "validation": 4}
    assert shown["published_sizes"] == {"train": 2490, "validation": 277}
    json.dumps(shown)


def test_lists_are_plain_values() -> None:
    rows = list_tasks()
    assert [r["task"] for r in rows] == task_names()
    assert {r["mixture"] for r in list_mixtures()} >= {"glue", "all", "sharpt_sources"}
    json.dumps([rows, list_mixtures()])


def split(name: str, texts: list[str]) -> Split:
    return Split.of(name, [Example(key=f"{name}/{i}", inputs=t, targets="x") for i, t in enumerate(texts)])


LONG = "the quick brown fox jumps over the lazy dog while the small red bird sings in the old green tree near the river"


def test_contamination_finds_exact_rows_whatever_their_fields_are_called() -> None:
    target = split("t", ["rte hypothesis: It rains. premise: The sky is grey.", "rte hypothesis: A premise: B"])
    source = split("s", ["mnli premise: The sky is GREY! hypothesis: it rains"])
    found = contamination(target, source)
    assert (found.exact, found.near, found.rows, found.source_rows) == (1, 0, 2, 1)
    assert found.pairs == (("t/0", "s/0", 1.0),)
    assert found.share == 50.0


def test_contamination_finds_near_rows_and_verifies_them() -> None:
    near = LONG.replace("lazy", "idle")
    target = split("t", [f"a text: {LONG}", "a text: something else entirely that shares no words at all here"])
    found = contamination(target, split("s", [f"b sentence: {near} today", "b sentence: unrelated"]), threshold=0.7)
    assert (found.exact, found.near) == (0, 1)
    words = [set(zip(w, w[1:], w[2:], strict=False)) for w in (LONG.split(), (near + " today").split())]
    assert found.pairs[0][2] == pytest.approx(len(words[0] & words[1]) / len(words[0] | words[1]), abs=1e-4)
    assert contamination(target, split("s", [f"b sentence: {near} today"]), threshold=0.95).near == 0


def test_contamination_misses_nothing_a_full_comparison_finds() -> None:
    import random

    rng = random.Random(0)
    words = [f"w{i}" for i in range(40)]

    def changed(text: list[str]) -> list[str]:
        return [rng.choice(words) if rng.random() < 0.03 else w for w in text]

    source = [[rng.choice(words) for _ in range(30)] for _ in range(150)]
    target = [changed(rng.choice(source)) for _ in range(100)]

    def shingles(text: list[str]) -> set[tuple[str, ...]]:
        return set(zip(text, text[1:], text[2:], strict=False))

    def similar(a: list[str], b: list[str]) -> float:
        x, y = shingles(a), shingles(b)
        return len(x & y) / len(x | y)

    expected = sum(any(similar(t, s) >= 0.8 for s in source) for t in target)
    found = contamination(split("t", [" ".join(t) for t in target]), split("s", [" ".join(s) for s in source]))
    assert 20 < expected < 95
    assert found.exact + found.near == expected


def test_contamination_edges() -> None:
    assert content("rte hypothesis: Élan! premise: ＡＢ") == ["élan", "ab"]
    assert content("plain text without fields") == ["plain text without fields"]
    found = contamination(split("t", ["", "a"]), split("s", ["b", ""]))
    assert found.exact + found.near == 0
    with pytest.raises(UsageError, match="threshold"):
        contamination(split("t", ["a"]), split("s", ["b"]), threshold=0.3)


class Tokenizer:
    """As much of a chat tokenizer as the form needs."""

    bos_token, bos_token_id = "<s>", 1
    chat_template = "made up"

    def apply_chat_template(self, turns: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool) -> str:
        assert not tokenize
        assert add_generation_prompt
        return "<s>" + "".join(f"[{t['role']}]{t['content']}\n" for t in turns) + "[assistant]\n"

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [1, 5]}


def test_chat_renders_turns_keeps_the_last_newline_and_goes_on_record(data: Path) -> None:
    task = with_chat(load_task("rte", data), Chat(system="Be brief."), Tokenizer())
    assert (
        task.split("train").examples[0].inputs
        == "[system]Be brief.\n[user]rte hypothesis: H. premise: P0.\n[assistant]\n"
    )
    assert task.chat is not None
    assert task.chat["system"] == "Be brief."
    assert task.chat["place"] == "before_bos"
    assert len(task.chat["template_sha256"]) == 64
    plain = with_chat(load_task("rte", data), Chat(), Tokenizer())
    assert plain.split("train").examples[0].inputs.startswith("[user]")
    assert plain.split("train").fingerprint != task.split("train").fingerprint


def test_chat_without_a_template_or_at_an_impossible_place(data: Path) -> None:
    bare = Tokenizer()
    bare.chat_template = ""
    with pytest.raises(UsageError, match="no chat template"):
        with_chat(load_task("rte", data), Chat(), bare)
    with pytest.raises(UsageError, match="prompt place 'after_system'"):
        Chat(place="after_system")


def test_a_table_with_a_field_nobody_knows_is_refused() -> None:
    from softprompt.tasks.declaration import _declared

    with pytest.raises(TypeError, match="metric"):
        _declared("x", {"category": "nli", "form": "fields", "metric": ("accuracy",)})


def test_rows_of_a_shared_source_are_kept_by_one_column() -> None:
    from softprompt.tasks.declaration import Keep

    rows = [{"subset": "SQuAD"}, {"subset": "NewsQA"}, {"subset": None}, {}]
    assert [Keep(column="subset", equals="SQuAD")(row) for row in rows] == [True, False, True, True]
    assert [Keep(column="subset", unlike="SQuAD")(row) for row in rows] == [False, True, True, True]
    assert [Keep(column="subset", starts="News")(row) for row in rows] == [False, True, True, True]
