"""Texts longer than a backbone: cut and counted, never a stop; the cue of a decoder's text stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.cli import call
from tests.support.models import save_tiny, tiny_backbone

from softprompt.errors import UsageError
from softprompt.inference.predict import predict
from softprompt.tasks.encoded import ANSWER_TOKENS, answer_room, check_labels, encode_split, input_room
from softprompt.tasks.task import Task
from softprompt.training.data import task_data
from softprompt.training.settings import TrainSettings

LONG = "good film with a fine plot " * 200


def long_rows() -> list[dict[str, Any]]:
    rows = [{"text": f"film number {i}", "label": ("bad", "good")[i % 2]} for i in range(30)]
    return [*rows, {"text": LONG, "label": "good"}]


def test_a_decoder_keeps_the_end_of_a_long_text() -> None:
    backbone = tiny_backbone("llama")
    task = Task.from_rows(long_rows()[:30], validation=long_rows()[-3:]).worded("natural")
    room = input_room(backbone, 10, task.labels)
    assert room is not None
    assert backbone.max_length is not None
    longest = max(len(row) for row in backbone.tokenize_targets(list(task.labels or ())))
    assert room == backbone.max_length - 10 - longest
    encoded = encode_split(task.split("validation"), backbone, max_input_tokens=room, max_target_tokens=None)
    assert encoded.cut_inputs == 1
    assert len(encoded.inputs(2)) == room
    whole = backbone.tokenize_inputs([encoded.examples[2].inputs])[0]
    assert encoded.inputs(2)[1:].tolist() == whole[1 - room :]
    assert backbone.tokenize_inputs(["x\nLabel:"])[0][-3:] == whole[-3:]
    front = backbone.tokenize_inputs(["x"])[0][0]
    assert encoded.inputs(2)[0] == front == encoded.inputs(0)[0]


def test_an_encoder_keeps_the_beginning() -> None:
    backbone = tiny_backbone("t5")
    assert input_room(backbone, 10, None) is None
    (ids,) = backbone.tokenize_inputs([f"good story {LONG}"], 12)
    assert ids[:-1] == backbone.tokenize_inputs([f"good story {LONG}"])[0][:11]


def test_a_prompt_that_leaves_no_room_is_refused() -> None:
    backbone = tiny_backbone("gpt2")
    with pytest.raises(UsageError, match=r"a prompt of 300 tokens and answers of up to .* leave no room for the text"):
        input_room(backbone, 300, ("a", "b"))
    task = Task.from_rows(long_rows())
    with pytest.raises(UsageError, match=r"leave no room for the text.*--prompt-length"):
        task_data(backbone, task, TrainSettings(steps=1, prompt_length=256))


@pytest.mark.parametrize(("positions", "most"), [(64, 16), (256, ANSWER_TOKENS), (2, 1), (None, ANSWER_TOKENS)])
def test_a_small_decoder_leaves_room_for_the_text(positions: int | None, most: int) -> None:
    backbone = tiny_backbone("gpt2")
    backbone.max_length = positions
    assert answer_room(backbone) == most
    assert answer_room(backbone, 200) == 200


def test_an_answer_that_was_asked_for_has_its_room() -> None:
    backbone = tiny_backbone("gpt2")
    backbone.max_length = 64
    found = predict(backbone, None, [LONG], max_new_tokens=50)
    assert found.cut == 1
    with pytest.raises(UsageError, match=r"answers of up to 64 leave no room"):
        predict(backbone, None, [LONG], max_new_tokens=64)


@pytest.mark.parametrize("kind", ["llama", "encdec"])
def test_one_long_row_stops_nothing(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    folder = tmp_path / "long"
    folder.mkdir()
    for split in ("train", "validation"):
        rows = "".join(json.dumps(row) + "\n" for row in long_rows())
        (folder / f"{split}.jsonl").write_text(rows)
    save_tiny(kind, tmp_path / "model")
    common = ("--backbone", str(tmp_path / "model"), "--dtype", "float32", "--library", str(tmp_path / "lib"))
    asked = (
        "train",
        "--task",
        str(folder),
        "--out",
        str(tmp_path / "run"),
        "--steps",
        "2",
        "--batch-size",
        "31",
        *common,
    )
    small = ("--prompt-length", "2", "--set", "eval_every=2", "--set", "embedding_step=2", "--set", "eval_rows=0")
    code, _, err = call(capsys, *asked, *small)
    assert code == 0, err
    assert "1 training inputs cut" in err
    assert "1 validation inputs cut" in err
    code, _, err = call(capsys, "eval", "--task", str(folder), "--prompt", "long@1", *common)
    assert code == 0, err
    assert "task long: 1 of 31 inputs cut to the" in err
    code, _, err = call(capsys, "predict", LONG, "--prompt", "long@1", *common)
    assert code == 0, err
    assert "1 of 1 texts were longer than backbone" in err
    (tmp_path / "new.csv").write_text("id,text\n1,some words\n2,\n3,  \n")
    code, _, err = call(capsys, "predict", "--file", str(tmp_path / "new.csv"), "--prompt", "long@1", *common)
    assert code == 0, err
    assert "2 of 3 texts are empty" in err


def test_labels_that_a_tokenizer_cannot_write_are_refused_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = tiny_backbone("t5")
    with pytest.raises(UsageError, match="label '☃' cannot be written by the tokenizer"):
        check_labels(backbone, ("good", "☃"))
    check_labels(backbone, ("good", "bad"))
    (tmp_path / "snow.csv").write_text("text,label\n" + "".join(f"film {i},{'☃☀'[i % 2]}\n" for i in range(20)))
    save_tiny("t5", tmp_path / "t5")
    asked = (str(tmp_path / "snow.csv"), "--backbone", str(tmp_path / "t5"))
    for command in (("tasks", "check", *asked), ("train", "--task", *asked, "--out", str(tmp_path / "run"))):
        code, _, err = call(capsys, *command)
        assert code == 2
        assert "cannot be written by the tokenizer" in err
