"""A space on the disk: exact round trip, refused on another backbone or encoder, damage noticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.support.models import tiny_backbone
from tests.support.small_tasks import WordEncoder

from softprompt.artifacts import read_json
from softprompt.batch import Rows
from softprompt.errors import CorruptArtifactError, DataError, IncompatibleBackboneError, UsageError
from softprompt.methods.sharpt.space import MANIFEST, TENSORS, Space, load_prompter, load_space, space_encoder
from softprompt.methods.sharpt.start import StartSettings, start_space

TEXTS = [f"{a} {b}" for a in ("cat", "dog", "bird") for b in ("red", "green", "blue")]
ROWS = Rows(run_B=torch.zeros(9, dtype=torch.int64), inputs=TEXTS)


def a_space(seed: int = 0, name: str = "space", kind: str = "t5", task_prompt: bool = False) -> Space:
    backbone, encoder = tiny_backbone(kind), WordEncoder()
    prompts = start_space(
        backbone, encoder, encoder.encode(TEXTS), [seed], prompt_length=4,
        start=StartSettings(skill_count=3, task_prompt=task_prompt),
    )  # fmt: skip
    return Space.of(prompts, backbone, name=name, kind="space", training={"seed": seed})


@pytest.mark.parametrize("task_prompt", [False, True])
def test_round_trip_is_exact(tmp_path: Path, task_prompt: bool) -> None:
    backbone, encoder = tiny_backbone("t5"), WordEncoder()
    space = a_space(task_prompt=task_prompt)
    space.save(tmp_path / "space")
    loaded = load_space(tmp_path / "space")
    assert {n: t.tolist() for n, t in loaded.tensors.items()} == {n: t.tolist() for n, t in space.tensors.items()}
    assert (loaded.settings, loaded.scales, loaded.spread) == (space.settings, space.scales, space.spread)
    before = space.prompter(backbone, encoder).prompts(ROWS)
    after = load_prompter([tmp_path / "space"], backbone, encoder=encoder).prompts(ROWS)
    assert torch.equal(before.unique_UPH, after.unique_UPH)
    assert torch.equal(before.which_B, after.which_B)
    assert str(after.key_U[0]).startswith("space/skill-")


def test_several_prompts_of_one_space_serve_together(tmp_path: Path) -> None:
    backbone, encoder = tiny_backbone("t5"), WordEncoder()
    first = a_space()
    second = Space(**{**{f: getattr(first, f) for f in first.__dataclass_fields__}, "name": "other",
                      "tensors": {n: t + 0.1 for n, t in first.tensors.items()}})  # fmt: skip
    first.save(tmp_path / "a")
    second.save(tmp_path / "b")
    both = load_prompter([tmp_path / "a", tmp_path / "b"], backbone, encoder=encoder)
    mixed = both.prompts(Rows(run_B=torch.tensor([0, 1] * 4 + [0]), inputs=TEXTS))
    alone = second.prompter(backbone, encoder).prompts(ROWS)
    torch.testing.assert_close(mixed.unique_UPH[mixed.which_B[1]], alone.unique_UPH[alone.which_B[1]])
    a_space(task_prompt=True).save(tmp_path / "c")
    with pytest.raises(IncompatibleBackboneError, match="different latent spaces"):
        load_prompter([tmp_path / "a", tmp_path / "c"], backbone, encoder=encoder)


def test_another_backbone_or_encoder_is_refused(tmp_path: Path) -> None:
    space = a_space()
    with pytest.raises(IncompatibleBackboneError, match=r"trained on tiny-t5 .* is another model"):
        space.prompter(tiny_backbone("t5", seed=1), WordEncoder())
    with pytest.raises(
        IncompatibleBackboneError, match=r"instance encoder words \(width 5\); words \(width 6\) is another"
    ):
        space.prompter(tiny_backbone("t5"), WordEncoder(6))
    with pytest.raises(
        IncompatibleBackboneError, match="needs its instance encoder 'words', which could not be loaded"
    ):
        space_encoder(space, tiny_backbone("t5"))
    assert IncompatibleBackboneError.exit_code == 4


def test_the_encoder_is_found_by_its_name() -> None:
    backbone = tiny_backbone("t5")
    from softprompt.methods.sharpt.encoders import BackboneEncoder

    encoder = BackboneEncoder(backbone)
    prompts = start_space(
        backbone, encoder, encoder.encode(TEXTS), [0], prompt_length=4, start=StartSettings(skill_count=3)
    )
    space = Space.of(prompts, backbone, name="s", kind="space")
    assert space_encoder(space, backbone).fingerprint == encoder.fingerprint


def test_damage_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "space"
    a_space().save(folder)
    with pytest.raises(UsageError, match="already exists"):
        a_space().save(folder)
    data = bytearray((folder / TENSORS).read_bytes())
    data[-1] ^= 1
    (folder / TENSORS).write_bytes(data)
    with pytest.raises(CorruptArtifactError):
        load_space(folder)
    a_space().save(folder, replace=True)
    manifest = read_json(folder / MANIFEST)
    for change in ({"settings": {"nonsense": 1}}, {"spread": "wide"}, {"encoder": 5, "sha256": {}}):
        (folder / MANIFEST).write_text(json.dumps({**manifest, **change}))
        with pytest.raises(CorruptArtifactError):
            load_space(folder)
    (folder / MANIFEST).write_text(json.dumps({**manifest, "version": 9}))
    with pytest.raises(DataError, match="version 9"):
        load_space(folder)
    (folder / MANIFEST).write_text("{}")
    with pytest.raises(DataError, match="of another kind"):
        load_space(folder)
    with pytest.raises(DataError, match="no latent space in"):
        load_space(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"nonsense": 1}, "field 'nonsense'"),
        ({"spread": float("nan")}, "NaN is no JSON number"),
        ({"spread": 0.0}, "field 'spread'"),
        ({"skill_count": 10**9}, "tensor 'skills' should be (1000000000, 5)"),
        ({"prompt_length": 7}, "tensor 'position' should be (7, "),
        ({"name": "a\u202eb"}, "field 'name'"),
        ({"name": "a\nb"}, "field 'name'"),
        ({"scales": {"w3": 1.0}}, "field 'scales"),
        ({"scales": {"w1": 0.0}}, "field 'scales"),
        ({"task_names": "rte"}, "field 'task_names'"),
        ({"kind": "library"}, "field 'kind'"),
        ({"sha256": {"space.safetensors": "0"}}, "field 'sha256"),
        ({"wording": {"task": "t", "form": "code"}}, "form"),
        ({"settings": {"latent_space": False, "metric": "euclidean", "top_n": 1, "temperature": 1.0,
                       "skill_gradient": True, "codebook_weight": 1.0}}, "tensor 'skills' does not belong there"),
    ],
)  # fmt: skip
def test_hostile_spaces_are_refused_with_a_sentence(tmp_path: Path, change: dict[str, object], told: str) -> None:
    folder = tmp_path / "space"
    a_space().save(folder)
    manifest = read_json(folder / MANIFEST)
    (folder / MANIFEST).write_text(json.dumps({**manifest, **change}))
    with pytest.raises(CorruptArtifactError) as refused:
        load_space(folder)
    message = str(refused.value)
    assert told in message
    assert "\n" not in message
    assert "\u202e" not in message


def test_a_manifest_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "space"
    a_space().save(folder)
    monkeypatch.setattr("softprompt.methods.sharpt.manifest.LARGEST_BYTES", 100)
    with pytest.raises(CorruptArtifactError, match="a manifest has at most 100"):
        load_space(folder)


def test_spaces_of_the_first_version_read_names_as_they_did(tmp_path: Path) -> None:
    folder = tmp_path / "space"
    a_space().save(folder)
    manifest = read_json(folder / MANIFEST)
    old = {name: value for name, value in manifest.items() if name not in ("task_names", "wording")}
    (folder / MANIFEST).write_text(json.dumps({**old, "version": 1}))
    assert load_space(folder).task_names == ()


def test_no_space_at_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no latent space in"):
        load_space(tmp_path / ("é" * 300))
