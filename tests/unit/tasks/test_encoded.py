"""Tokenised splits: in memory and from the cache, the same ids; keyed by all they depend on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.support.models import tiny_backbone

from softprompt.errors import UsageError
from softprompt.tasks import encoded
from softprompt.tasks.encoded import encode_split
from softprompt.tasks.example import Example, Split

TEXTS = ["the cat", "", "a red house by the river and a green tree", "yes", "dog " * 30]


@pytest.fixture(scope="module")
def backbone():  # type: ignore[no-untyped-def]
    return tiny_backbone("t5")


def split(texts: Sequence[str] = TEXTS) -> Split:
    rows = [
        Example(key=f"t/train/{i}", inputs=text, targets=text[:7], extra={"label": 0}) for i, text in enumerate(texts)
    ]
    return Split.of("train", rows, skipped=2)


def test_ids_are_the_backbones(backbone, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    whole = split()
    expected = backbone.tokenize_inputs([e.inputs for e in whole.examples], 8)
    targets = backbone.tokenize_targets([e.targets for e in whole.examples], None)
    for cache in (None, tmp_path, tmp_path):
        made = encode_split(whole, backbone, max_input_tokens=8, max_target_tokens=None, cache=cache)
        assert [made.inputs(i).tolist() for i in range(len(made))] == expected
        assert [made.targets(i).tolist() for i in range(len(made))] == targets
        assert made.inputs(0).dtype == np.int32
        assert made.input_lengths.tolist() == [len(r) for r in expected]
        assert made.target_lengths.tolist() == [len(r) for r in targets]
        assert (made.cut_inputs, made.cut_targets, made.skipped) == (2, 0, 2)
        assert made.fingerprint == whole.fingerprint


def test_the_cache_is_used_and_keyed(backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    def entries() -> int:
        return len([p for p in tmp_path.iterdir() if p.is_dir()])

    encode_split(split(), backbone, max_input_tokens=8, max_target_tokens=4, cache=tmp_path)
    assert entries() == 1
    with monkeypatch.context() as patch:
        patch.setattr(encoded._Side, "to_disk", None)  # a second tokenising would fail
        made = encode_split(split(), backbone, max_input_tokens=8, max_target_tokens=4, cache=tmp_path)
    assert isinstance(made.input_ids.flat, np.memmap)
    encode_split(split(), backbone, max_input_tokens=9, max_target_tokens=4, cache=tmp_path)
    encode_split(split(), backbone, max_input_tokens=8, max_target_tokens=None, cache=tmp_path)
    encode_split(split(TEXTS[:-1]), backbone, max_input_tokens=8, max_target_tokens=4, cache=tmp_path)
    encode_split(split(), tiny_backbone("gpt2"), max_input_tokens=8, max_target_tokens=4, cache=tmp_path)
    assert entries() == 5


@pytest.mark.parametrize("damage", ["flip", "cut", "lose", "meta"])
def test_a_damaged_cache_entry_is_made_again(backbone, tmp_path: Path, damage: str) -> None:  # type: ignore[no-untyped-def]
    whole = encode_split(split(), backbone, max_input_tokens=8, max_target_tokens=4, cache=tmp_path)
    expected = [whole.inputs(i).tolist() for i in range(len(whole))]
    [entry] = [p for p in tmp_path.iterdir() if p.is_dir()]
    file = entry / "inputs.ids"
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[3] ^= 0xFF
        file.write_bytes(data)
    elif damage == "cut":
        file.write_bytes(data[:-4])
    elif damage == "lose":
        file.unlink()
    else:
        (entry / "meta.json").write_text("{")
    again = encode_split(split(), backbone, max_input_tokens=8, max_target_tokens=4, cache=tmp_path)
    assert [again.inputs(i).tolist() for i in range(len(again))] == expected


def test_chunks_do_not_change_ids(backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    whole = encode_split(split(), backbone, max_input_tokens=8, max_target_tokens=None)
    monkeypatch.setattr(encoded, "CHUNK", 2)
    parts = encode_split(split(), backbone, max_input_tokens=8, max_target_tokens=None, cache=tmp_path)
    assert [parts.inputs(i).tolist() for i in range(5)] == [whole.inputs(i).tolist() for i in range(5)]


def test_select_keeps_rows_and_has_its_own_fingerprint(backbone) -> None:  # type: ignore[no-untyped-def]
    whole = encode_split(split(), backbone, max_input_tokens=None, max_target_tokens=None)
    part = whole.select([4, 0])
    assert [e.key for e in part.examples] == ["t/train/4", "t/train/0"]
    assert part.inputs(0).tolist() == whole.inputs(4).tolist()
    assert part.targets(1).tolist() == whole.targets(0).tolist()
    assert part.fingerprint != whole.fingerprint
    assert len(whole.select([])) == 0


def test_limits_below_one_are_refused(backbone) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="max_input_tokens is 0"):
        encode_split(split(), backbone, max_input_tokens=0, max_target_tokens=None)
