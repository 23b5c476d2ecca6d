"""A prompt's card: what the Hub's own parser reads of it, and that nothing in a manifest changes its shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from tests.support.manifests import WORDING, record

from softprompt.library.store import Library


def card_of(folder: Path, **more: Any) -> ModelCard:
    stored = Library(folder).add(record(**more), replace=True)
    return ModelCard((Path(stored.place) / "README.md").read_text())


def test_the_hubs_parser_reads_it(tmp_path: Path) -> None:
    card = card_of(
        tmp_path, wording=WORDING, scoring="labels", backbone_name="google/t5-base-lm-adapt", licence="Apache-2.0",
        data_source={"repo": "stanfordnlp/sst2", "config": None, "branch": "main", "revision": "a" * 40},
        tags=("sentiment",),
    )  # fmt: skip
    data = card.data.to_dict()
    assert data["library_name"] == "peft"
    assert data["license"] == "apache-2.0"
    assert data["base_model"] == "google/t5-base-lm-adapt"
    assert data["datasets"] == ["stanfordnlp/sst2"]
    assert data["pipeline_tag"] == "text-classification"
    assert data["tags"] == ["soft-prompt", "prompt-tuning", "sentiment"]
    results = {result.metric_type: result for result in card.data.eval_results}
    assert (results["score"].metric_value, results["f1"].metric_value) == (12.5, 3.0)
    assert results["f1"].dataset_type == "stanfordnlp/sst2"
    text = card.text
    for words in (
        "softprompt predict prompts/films@0 'your text'",
        'sp.load_backbone("google/t5-base-lm-adapt")', 'sp.predict(backbone, "prompts/films@0", ["your text"])',
        'AutoModelForSeq2SeqLM.from_pretrained("google/t5-base-lm-adapt")',
        '`"text: {text}"`', "| good | good |", "the probability of each label", "| f1 | 3.00 |", "| licence | Apache-2.0 |",
    ):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize(
    ("licence", "fields"),
    [
        ("MIT", {"license": "mit"}),
        ("unstated", {"license": "other", "license_name": "unstated"}),
        ("CC BY-SA 4.0 (text)", {"license": "other", "license_name": "cc-by-sa-4.0-text"}),
        ("yes: no\\n- [x]", {"license": "other", "license_name": "yes-no-n-x"}),
    ],
)
def test_licences_become_the_hubs_fields(tmp_path: Path, licence: str, fields: dict[str, str]) -> None:
    data = card_of(tmp_path, licence=licence).data.to_dict()
    assert {key: data.get(key) for key in fields} == fields


def test_what_a_manifest_says_cannot_change_the_cards_shape(tmp_path: Path) -> None:
    nasty = "x'; rm -rf ~ #| ---\""
    card = card_of(
        tmp_path, task="films", name="films@0", backbone_name=nasty, backbone_kind="causal", origin=nasty, tags=(nasty,),
        wording={**WORDING, "template": "{text}\n---\n```\n| a |", "labels": ["a|b", "c\nd"]},
        command="softprompt train --template '```'", scores={},
    )  # fmt: skip
    assert card.data.to_dict()["tags"][-1] == nasty
    assert "base_model" not in card.data.to_dict()
    assert 'sp.load_backbone("x\'; rm -rf ~ #| ---\\"")' in card.text
    assert card.text.count("```") == 8
    assert "| a\\|b | a\\|b |" in card.text
    assert "| c d | c d |" in card.text


def test_a_task_of_two_columns_is_used_with_rows(tmp_path: Path) -> None:
    card = card_of(tmp_path, wording={**WORDING, "template": "{a} {b}", "columns": ["a", "b"]})
    assert "softprompt predict prompts/films@0 --file rows.csv" in card.text
    assert '[{"a": "your a", "b": "your b"}]' in card.text


def test_a_prompt_without_wording_or_scores_has_a_card(tmp_path: Path) -> None:
    card = card_of(tmp_path, scores={}, tags=(), task_embedding=None, prompt=torch.ones(1, 4))
    assert card.data.eval_results is None
    assert card.data.to_dict()["pipeline_tag"] == "text-generation"
    assert "## Scores" not in card.text


def test_markup_in_a_record_is_text_on_its_card(tmp_path: Path) -> None:
    Library(tmp_path).add(record("films", origin="<script>alert(1)</script>", licence="<img src=x>", name="a@0"))
    card = (tmp_path / "a@0" / "README.md").read_text()
    assert "&lt;script&gt;" in card
    assert "| <" not in card
