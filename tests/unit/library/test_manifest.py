"""The manifest's schema: what is written comes back, what is wrong is named in one sentence, and nothing else is stopped by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.manifests import WORDING, record, signed

from softprompt.artifacts import sha256_bytes
from softprompt.errors import CorruptArtifactError, UsageError
from softprompt.library.manifest import Manifest, make_manifest
from softprompt.library.search import search
from softprompt.library.store import Library


def changed(library: Library, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Writes a prompt's manifest anew, changed and signed again."""
    path = Path(library.location) / name / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_bytes(signed(content))


def test_wording_and_scoring_come_back(tmp_path: Path) -> None:
    library = Library(tmp_path)
    stored = library.add(record(wording=WORDING, scoring="labels"))
    again = Library(tmp_path).get("films@0").manifest
    assert again == stored.manifest
    assert again.wording == WORDING
    assert again.scoring == "labels"
    assert again.recipe == {"steps": 7, "betas": [0.9, 0.99], "folder": "x"}
    assert library.verify() == {}


def test_manifests_of_the_first_format_open(tmp_path: Path) -> None:
    library = Library(tmp_path)
    library.add(record())

    def older(content: dict[str, Any]) -> None:
        content["format"] = "softprompt-prompt/1"
        for later in ("wording", "scoring", "chat", "data_source"):
            del content[later]

    changed(library, "films@0", older)
    manifest = Library(tmp_path).get("films@0").manifest
    assert (manifest.wording, manifest.scoring, manifest.chat, manifest.data_source) == (None, None, None, {})
    assert library.verify() == {}
    changed(library, "films@0", lambda content: content.update(wording=WORDING))
    with pytest.raises(CorruptArtifactError, match="has no field 'wording'"):
        Library(tmp_path).get("films@0")


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "fingerprint": (
        lambda c: c.update(backbone_fingerprint="same as yours"),
        "field 'backbone_fingerprint' is 'same as",
    ),
    "fingerprint list": (lambda c: c.update(data_fingerprint=["d" * 64]), "field 'data_fingerprint' is \\['ddd"),
    "integer tags": (lambda c: c.update(tags=[1, 2]), "field 'tags.0' is 1"),
    "text tags": (lambda c: c.update(tags="ab"), "field 'tags' is 'ab'"),
    "list scores": (lambda c: c.update(scores=[1.0]), "field 'scores' is \\[1.0\\]"),
    "text score": (lambda c: c["scores"].update(score="90"), "field 'scores.score' is '90'"),
    "huge score": (lambda c: c["scores"].update(score=True), "field 'scores.score' is True"),
    "true steps": (lambda c: c.update(steps=True), "field 'steps' is True"),
    "negative": (lambda c: c.update(prompt_length=-3), "field 'prompt_length' is -3"),
    "text seed": (lambda c: c.update(seed="1"), "field 'seed' is '1'"),
    "name": (lambda c: c.update(name="../up"), "field 'name' is '../up'"),
    "control characters": (lambda c: c.update(task="films\x1b[31m"), "control characters"),
    "turned text": (lambda c: c.update(licence="MIT\u202e"), "control characters"),
    "unknown": (lambda c: c.update(run="rm -r"), "field 'run'"),
    "missing": (lambda c: c.pop("scores"), "field 'scores' lacks a value"),
    "another file": (lambda c: c["files"].update({"task.py": "0" * 64}), "no other files, not task.py"),
    "no digest": (lambda c: c["files"].update({"README.md": 7}), "field 'files.README.md' is 7"),
    "no adapter": (lambda c: c["files"].pop("adapter_model.safetensors"), "does not list adapter_model.safetensors"),
    "scoring": (lambda c: c.update(scoring="best"), "field 'scoring' is 'best'"),
    "wording form": (lambda c: c.update(wording={**WORDING, "form": "eval"}), "field 'wording' .*form"),
    "wording with more": (lambda c: c.update(wording={**WORDING, "code": "x"}), "field 'wording' .*code"),
    "wording": (lambda c: c.update(wording=["text: {text}"]), "field 'wording' is"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_fields_are_named_in_one_sentence_and_stepped_over(tmp_path: Path, case: str) -> None:
    change, words = WRONG[case]
    library = Library(tmp_path)
    library.add(record())
    library.add(record("sound"))
    changed(library, "films@0", change)
    again = Library(tmp_path)
    with pytest.raises(CorruptArtifactError, match=words) as error:
        again.get("films@0")
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)
    assert [entry.name for entry in again.list()] == ["sound@0"]
    assert set(again.index.problems) == {"films@0"}
    assert set(again.verify()) == {"films@0"}
    assert [match.name for match in search(again, [torch.randn(3, 4)])] == ["sound@0"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'"score": 12.5', b'"score": NaN', "NaN is no JSON number"),
        (b'"score": 12.5', b'"score": 1e999', "finite"),
        (b'"score": 12.5', b'"score": 12.5, "score": 99.0', "the key 'score' is there twice"),
        (b'"seed": 0', b'"seed": ' + b"[" * 100_000, "not readable JSON"),
    ],
)
def test_json_that_readers_take_in_two_ways_is_refused(old: bytes, new: bytes, words: str) -> None:
    data = make_manifest(record(), FILES).to_bytes().replace(old, new)
    body = data[: data.rfind(b',\n  "manifest_sha256": ')] + b"\n}\n"
    data = body[:-3] + b',\n  "manifest_sha256": "' + sha256_bytes(body).encode() + b'"\n}\n'
    with pytest.raises(CorruptArtifactError, match=words):
        Manifest.from_bytes(data, "manifest.json")


FILES = dict.fromkeys(("adapter_config.json", "adapter_model.safetensors", "task_vectors.safetensors"), "0" * 64)


def test_a_manifest_of_any_size_is_not_read() -> None:
    with pytest.raises(CorruptArtifactError, match=r"at most 4,194,304"):
        Manifest.from_bytes(b" " * (2**22 + 1), "manifest.json")


def test_a_record_that_cannot_be_stored_says_why(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be stored: field 'licence' is .*control characters"):
        Library(tmp_path).add(record(licence="MIT\n"))
    with pytest.raises(UsageError, match="field 'scoring' is 'best'"):
        Library(tmp_path).add(record(scoring="best"))
    assert Library(tmp_path).names() == []
