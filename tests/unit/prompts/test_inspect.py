"""What a prompt says."""

from __future__ import annotations

import json

import pytest
import torch
from tests.support.models import tiny_backbone

from softprompt.errors import IncompatibleBackboneError, UsageError
from softprompt.prompts import inspect
from softprompt.prompts.init import InitSettings, initial_prompt
from softprompt.prompts.inspect import read_prompt, start_again


@pytest.mark.parametrize("piece", [7, 16_384])
def test_vocabulary_rows_read_as_themselves(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "_PIECE", piece)
    backbone = tiny_backbone("t5")
    ids = backbone.tokenizer("the cat runs", add_special_tokens=False)["input_ids"]
    table = backbone.embedding_table()
    reading = read_prompt(backbone, table[ids] * 3.0, initial_PH=table[ids], neighbours=4)
    assert [row.nearest[0].token_id for row in reading.rows] == ids
    assert reading.mean_nearest_cosine == pytest.approx(1.0, abs=1e-5)
    assert reading.text == "the cat runs"
    for row, i in zip(reading.rows, ids, strict=True):
        assert row.norm == pytest.approx(3 * float(table[i].norm()), rel=1e-5)
        assert row.distance_from_initial == pytest.approx(2 * float(table[i].norm()), rel=1e-5)
        cosines = torch.cosine_similarity(table, table[i][None])
        assert [n.token_id for n in row.nearest] == cosines.topk(4).indices.tolist()
        assert [n.cosine for n in row.nearest] == pytest.approx(cosines.topk(4).values.tolist(), abs=1e-5)
        assert row.distance_from_vocabulary == pytest.approx(float((table - 3 * table[i]).norm(dim=1).min()), rel=1e-4)
    assert reading.vocabulary_norm == pytest.approx(float(table.norm(dim=1).mean()), rel=1e-5)


def test_an_untrained_prompt_has_not_moved() -> None:
    backbone = tiny_backbone("gpt2")
    start = initial_prompt(backbone, InitSettings(), 5, seed=0)
    reading = read_prompt(backbone, start, initial_PH=start)
    assert (reading.distance_from_initial, reading.distance_from_vocabulary) == (0.0, 0.0)
    assert read_prompt(backbone, start).distance_from_initial is None


def test_ids_beyond_the_tokenizer_are_shown_as_numbers() -> None:
    backbone = tiny_backbone("t5")
    last = len(backbone.tokenizer) - 1
    table = backbone.embedding_table()

    class Short:
        def __len__(self) -> int:
            return last

        def convert_ids_to_tokens(self, token_id: int) -> str:
            return f"token{token_id}"

    backbone.tokenizer = Short()
    reading = read_prompt(backbone, table[[0, last]], neighbours=1)
    assert [row.nearest[0].token for row in reading.rows] == ["token0", f"<id {last}>"]


def test_misuse() -> None:
    backbone = tiny_backbone("t5")
    with pytest.raises(IncompatibleBackboneError):
        read_prompt(backbone, torch.ones(2, 3))
    with pytest.raises(UsageError, match="neighbour"):
        read_prompt(backbone, torch.ones(2, backbone.hidden_size), neighbours=0)
    with pytest.raises(UsageError, match="alike"):
        read_prompt(backbone, torch.ones(2, backbone.hidden_size), initial_PH=torch.ones(3, backbone.hidden_size))


@pytest.mark.parametrize(
    "settings",
    [
        InitSettings(),
        InitSettings(sampled_ids=30),
        InitSettings(kind="uniform", uniform_scale=0.25),
        InitSettings(kind="text", text="a cat"),
        InitSettings(kind="class-labels", labels=("yes", "no")),
    ],
)
def test_a_start_is_made_again_from_its_record(settings: InitSettings) -> None:
    backbone = tiny_backbone("t5")
    again = start_again(backbone, json.loads(json.dumps(settings.record())), 6, seed=4)
    assert again is not None
    assert torch.equal(again, initial_prompt(backbone, settings, 6, seed=4))


@pytest.mark.parametrize(
    "record", [{}, {"kind": "prompt", "origin": "mnli@0"}, {"kind": "transfer", "sources": []}, {"kind": "text"}]
)
def test_a_start_that_is_not_told_is_none(record: dict[str, object]) -> None:
    assert start_again(tiny_backbone("t5"), record, 6, seed=4) is None
