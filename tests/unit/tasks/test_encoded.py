"""Tokenised splits: in memory and from the cache, the same ids; keyed by all they depend on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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


def prefix_split(backbone, texts: Sequence[str], most_inputs: int | None = None, most_targets: int | None = None):  # type: ignore[no-untyped-def]
    rows = [
        Example(key=f"t/train/{i}", inputs=text.split()[0], targets=" ".join(text.split()[1:]))
        for i, text in enumerate(texts)
    ]
    split = replace(Split.of("train", rows), drawn_prefix=True)
    return encode_split(split, backbone, max_input_tokens=most_inputs, max_target_tokens=most_targets)


@pytest.mark.parametrize("kind", ["t5", "gpt2", "encdec", "llama"])
def test_a_prefix_is_cut_between_tokens_and_anew(kind: str) -> None:
    backbone = tiny_backbone(kind)
    text = "a red house by the river and a green tree"
    made = prefix_split(backbone, [text])
    before, behind, end = backbone.framing()
    whole = backbone.tokenize_inputs([text])[0]
    ids = whole[len(before) : len(whole) - len(behind)]
    cuts = set()
    for key in range(200):
        inputs, targets = (part.tolist() for part in made.pair(0, key))
        assert inputs[: len(before)] == list(before)
        first = inputs[len(before) : len(inputs) - len(behind)]
        assert inputs == [*before, *first, *behind]
        assert targets[len(targets) - len(end) :] == list(end)
        assert [*first, *targets[: len(targets) - len(end)]] == ids  # nothing is lost and nothing is said twice
        cuts.add(len(first))
    assert cuts == set(range(1, len(ids)))  # every token can be the first of the target
    assert made.inputs(0).tolist() == made.inputs(0).tolist()
    assert made.pair(0, 7)[0].tolist() == made.pair(0, 7)[0].tolist()


def test_a_long_text_gives_each_of_its_chunks(backbone) -> None:  # type: ignore[no-untyped-def]
    text = " ".join(["cat dog bird fish tree"] * 20)
    made = prefix_split(backbone, [text, "cat dog"], most_inputs=17, most_targets=9)
    ids = backbone.tokenize_inputs([text])[0][:-1]
    starts = set()
    for key in range(300):
        inputs, targets = (part.tolist() for part in made.pair(0, key))
        assert len(inputs) <= min(17, made.input_lengths[0])
        assert len(targets) <= min(9, made.target_lengths[0])
        chunk = [*inputs[:-1], *targets[:-1]]
        starts.update(s for s in range(0, len(ids), 16) if ids[s : s + len(chunk)] == chunk)
    assert max(starts) >= 16 * ((len(ids) - 2) // 16)
    assert len(made.select([1])) == 1
    assert made.select([1]).pair(0, 3)[0].tolist() == made.pair(1, 3)[0].tolist()
