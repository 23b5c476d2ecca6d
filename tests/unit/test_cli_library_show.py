"""``library show --read`` and ``library rm`` of a damaged prompt."""

import json

import pytest
from tests.support.models import save_tiny

from softprompt.backbones.load import load_backbone
from softprompt.cli.app import run
from softprompt.library.record import PromptRecord
from softprompt.library.store import Library
from softprompt.prompts.init import InitSettings, initial_prompt


@pytest.fixture
def place(tmp_path):
    backbone = load_backbone(str(save_tiny("t5", tmp_path / "model")), dtype="float32")
    init = InitSettings()
    prompt = initial_prompt(backbone, init, 3, seed=5)
    Library(tmp_path / "library").add(
        PromptRecord(
            task="word",
            prompt=prompt,
            seed=5,
            init=init.record(),
            backbone_name=backbone.name,
            backbone_fingerprint=backbone.fingerprint,
            backbone_kind=backbone.kind,
        )
    )
    return tmp_path


def test_an_untrained_prompt_reads_as_the_words_it_started_from(place, capsys):
    assert run(["library", "show", str(place / "library"), "word@5", "--read", "--dtype", "float32", "--json"]) == 0
    reading = json.loads(capsys.readouterr().out)["reading"]
    assert len(reading["rows"]) == 3
    for row in reading["rows"]:
        assert row["nearest"][0]["cosine"] == pytest.approx(1.0, abs=1e-4)
        assert row["distance_from_initial"] == pytest.approx(0.0, abs=1e-4)


def test_another_backbone_is_refused(place, tmp_path, capsys):
    other = save_tiny("t5", tmp_path / "other", seed=1)
    asked = ["library", "show", str(place / "library"), "word@5", "--read", "--dtype", "float32"]
    assert run([*asked, "--backbone", str(other)]) == 4
    assert "word@5" in capsys.readouterr().err


def test_a_damaged_prompt_can_be_removed(place, capsys):
    (place / "library" / "word@5" / "manifest.json").write_text("{")
    assert run(["library", "rm", str(place / "library"), "word@5"]) == 0
    assert not (place / "library" / "word@5").exists()
    assert run(["library", "rm", str(place / "library"), "word@5"]) == 2
    assert "unknown prompt 'word@5'" in capsys.readouterr().err
