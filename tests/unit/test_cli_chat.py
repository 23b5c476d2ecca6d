"""A prompt that was tuned on conversations goes back into the same conversation: predict, eval, serving, retraining."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.cli import call, make_tasks
from tests.support.models import tiny_model

from softprompt.backbones.load import load_backbone
from softprompt.batch import Rows, TokenBatch
from softprompt.errors import IncompatibleBackboneError
from softprompt.inference.engine import Engine, Request, from_library
from softprompt.library.store import Library
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.chat import Chat, conversation
from softprompt.tasks.tuned import as_tuned

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }} title: {{ m['content'] }} . {% endfor %}"
    "{% if add_generation_prompt %}review:{% endif %}"
)
SMALL = ("--steps", "2", "--batch-size", "2", "--prompt-length", "2", "--set", "eval_every=2", "--set", "embedding_step=2",
         "--set", "eval_rows=4", "--dtype", "float32")  # fmt: skip


def save_chat(folder: Path, template: str = TEMPLATE) -> Path:
    """A tiny causal backbone whose tokenizer has a chat template."""
    model, tokenizer = tiny_model("llama", width=16, layers=1)
    tokenizer.chat_template = template
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("chat")
    save_chat(root / "chatty")
    save_chat(root / "otherwise", TEMPLATE.replace("review", "answer"))
    make_tasks(root / "data", "films")
    return root


@pytest.fixture(autouse=True)
def _here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


@pytest.fixture
def library(place: Path, capsys: pytest.CaptureFixture[str]) -> Library:
    """One prompt tuned on conversations (seed 1), one on plain inputs (seed 2)."""
    common = ("--task", "films", "--data", "data", "--backbone", "chatty", "--library", "lib", *SMALL)
    if not (place / "lib").exists():
        more = ("--chat", "--system", "Be brief.", "--seeds", "1", "--out", "runs/chat")
        assert call(capsys, "train", *common, *more)[0] == 0
        assert call(capsys, "train", *common, "--seeds", "2", "--out", "runs/plain")[0] == 0
    return Library(place / "lib")


def answer(library: Library, name: str, text: str) -> str:
    """What the backbone answers to a text exactly as given."""
    backbone = load_backbone("chatty", dtype="float32")
    stack = PromptStack.of([library.get(name).prompt()])
    batch = TokenBatch.of(backbone.tokenize_inputs([text]))
    with torch.no_grad():
        prompts = stack.prompts(Rows(run_B=torch.zeros(1, dtype=torch.int64)))
        return backbone.decode(backbone.generate(batch, prompts, 6))[0]


def test_the_manifest_keeps_the_conversation(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    chat = library.get("films@1").manifest.chat
    assert chat is not None
    assert (chat["system"], chat["place"]) == ("Be brief.", "before_bos")
    assert library.get("films@2").manifest.chat is None
    assert library.get("films@1").manifest.data_source == {}
    _, out, _ = call(capsys, "library", "show", "lib", "films@1")
    assert "Be brief." in out


def test_predict_and_serving_word_a_text_as_training_did(
    library: Library, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from softprompt.inference import predict

    read: list[str] = []
    encode = predict.encode_split

    def watched(split: Any, *args: Any, **more: Any) -> Any:
        read.extend(example.inputs for example in split.examples)
        return encode(split, *args, **more)

    monkeypatch.setattr(predict, "encode_split", watched)
    backbone = load_backbone("chatty", dtype="float32")
    plain = "Text: good film\nLabel:"
    worded = {"films@1": f"system title: Be brief. . user title: {plain} . review:", "films@2": plain}
    engine = Engine(backbone, from_library(library, backbone))
    for name, wanted in worded.items():
        asked = ("--prompt", name, "--library", "lib", "--backbone", "chatty", "--dtype", "float32")
        assert call(capsys, "predict", "good film", *asked)[0] == 0
        assert read.pop() == wanted
        assert call(capsys, "predict", wanted, "--as-is", *asked)[0] == 0
        assert read.pop() == wanted
        assert engine.prepare(Request(prompt=name, text="good film")).worded == wanted
        assert engine.prepare(Request(prompt=name, text={"text": "good film", "id": 3})).worded == wanted
        assert engine.prepare(Request(prompt=name, text="good film", as_is=True)).worded == "good film"


def test_predict_answers_a_split_as_eval_does(
    library: Library, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--library", "lib", "--backbone", "chatty", "--dtype", "float32")
    for name in ("films@1", "films@2"):
        asked = ("eval", "--task", "films", "--data", "data", "--prompt", name, "--predictions", "all.jsonl", *common)
        assert call(capsys, *asked)[0] == 0
        evaluated = [json.loads(line)["prediction"] for line in (place / "all.jsonl").read_text().splitlines()]
        file = ("--file", "data/films/validation.csv", "--out", f"{name}.jsonl")
        code, _, err = call(capsys, "predict", "--prompt", name, *file, *common)
        assert code == 0, err
        rows = [json.loads(line) for line in (place / f"{name}.jsonl").read_text().splitlines()]
        assert [row["prediction"] for row in rows] == evaluated
        assert [set(row) for row in rows] == [{"text", "label", "prediction"}] * 8
        with (place / "data/films/validation.csv").open(newline="") as lines:
            assert [row["text"] for row in rows] == [row["text"] for row in csv.DictReader(lines)]


def test_eval_words_each_prompts_rows_as_it_was_tuned(
    library: Library, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(
        capsys, "eval", "--task", "films", "--data", "data", "--prompt", "films@1,films@2", "--library", "lib", "--backbone",
        "chatty", "--dtype", "float32", "--max-new-tokens", "6", "--max-rows", "1", "--predictions", "answers.jsonl",
    )  # fmt: skip
    assert code == 0, err
    found = {row["prompt"]: row for row in map(json.loads, (place / "answers.jsonl").read_text().splitlines())}
    backbone = load_backbone("chatty", dtype="float32")
    from softprompt.tasks.catalog import load_task

    plain = load_task("films", place / "data").worded("natural").split("validation", max_rows=1).examples[0].inputs
    worded = Chat(system="Be brief.").render(plain, backbone.tokenizer)
    # Labels are scored, so the answers are those that predict gives to the text as it was worded.
    asked = ("--as-is", "--library", "lib", "--backbone", "chatty", "--dtype", "float32", "--json")
    for name, text in (("films@1", worded), ("films@2", plain)):
        _, out, _ = call(capsys, "predict", text, "--prompt", name, *asked)
        assert json.loads(out)["predictions"][0]["output"] == found[name]["prediction"]
        assert found[name]["prediction"] in ("positive", "negative")


def test_another_template_is_refused(library: Library, place: Path) -> None:
    record = library.get("films@1").manifest.chat
    other = load_backbone("otherwise", dtype="float32").tokenizer
    with pytest.raises(IncompatibleBackboneError, match="another chat template"):
        conversation(record, other)
    assert conversation(None, other)("as it is") == "as it is"
    from softprompt.tasks.catalog import load_task

    task = load_task("films", place / "data")
    assert as_tuned(task, None, other) is task


def test_it_survives_copies(library: Library, tmp_path: Path) -> None:
    stored = library.get("films@1")
    copied = Library(tmp_path / "copy").copy_from(stored)
    assert copied.manifest.chat == stored.manifest.chat


def test_a_system_turn_needs_a_conversation(capsys: pytest.CaptureFixture[str]) -> None:
    asked = (
        "train",
        "--task",
        "films",
        "--data",
        "data",
        "--backbone",
        "chatty",
        "--system",
        "x",
        "--out",
        "runs/none",
    )
    code, _, err = call(capsys, *asked)
    assert code == 2
    assert "--chat" in err
