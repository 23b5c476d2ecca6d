"""Push and pull against a Hub in memory that keeps commits as the real one does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support.hub import FakeHub

from softprompt.errors import CorruptArtifactError, UnknownNameError, UsageError
from softprompt.library.formats.hub import HubError, pull, push, push_prompt
from softprompt.library.record import PromptRecord
from softprompt.library.store import Library


@pytest.fixture
def hub(tmp_path: Path) -> FakeHub:
    return FakeHub(tmp_path / "hub-cache")


def filled(folder: Path, *tasks: str, embedding: bool = True) -> Library:
    library = Library(folder)
    for task in tasks:
        prompt = torch.randn(3, 4)
        library.add(
            PromptRecord(
                task=task,
                prompt=prompt,
                task_embedding=prompt if embedding else None,
                backbone_name="tiny",
                backbone_fingerprint="f" * 64,
                backbone_kind="t5",
            )
        )
    return library


def test_there_and_back_is_bitwise(tmp_path: Path, hub: FakeHub) -> None:
    library = filled(tmp_path / "a", "mnli", "sst2")
    commit = push(library, "me/prompts", api=hub)
    assert commit == "c1"
    assert hub.private == {"me/prompts": True}
    assert len(hub.commits["me/prompts"]) == 2, "one commit for everything"
    other = Library(tmp_path / "b")
    found, added = pull(other, "me/prompts", api=hub)
    assert found == "c1"
    assert [prompt.name for prompt in added] == ["mnli@0", "sst2@0"]
    for name in ("mnli@0", "sst2@0"):
        assert other.get(name).files() == library.get(name).files()
    assert "| mnli@0 | mnli | tiny |" in hub.commits["me/prompts"][-1]["README.md"].decode()
    assert pull(other, "me/prompts", api=hub).added == [], "what is there is not fetched again"
    assert push(library, "me/prompts", api=hub) == "c1", "nothing new, no commit"


def test_other_content_under_a_name_is_not_overwritten_unasked(tmp_path: Path, hub: FakeHub) -> None:
    push(filled(tmp_path / "a", "mnli", "sst2"), "me/prompts", api=hub)
    changed = filled(tmp_path / "b", "mnli", embedding=False)
    with pytest.raises(UsageError, match="already holds other prompts named mnli@0"):
        push(changed, "me/prompts", api=hub)
    push(changed, "me/prompts", replace=True, api=hub)
    tree = hub.commits["me/prompts"][-1]
    assert "mnli@0/task_embedding.safetensors" not in tree, "nothing of the old one is left"
    assert "sst2@0/manifest.json" in tree
    assert pull(Library(tmp_path / "old"), "me/prompts", revision="c1", api=hub).commit == "c1"
    assert Library(tmp_path / "old").get("mnli@0").manifest.has_task_embedding
    pull(Library(tmp_path / "old"), "me/prompts", ["mnli@0"], replace=True, api=hub)
    assert not Library(tmp_path / "old").get("mnli@0").manifest.has_task_embedding


def test_what_arrives_is_checked(tmp_path: Path, hub: FakeHub) -> None:
    push(filled(tmp_path / "a", "mnli"), "me/prompts", api=hub)
    tree = hub.commits["me/prompts"][-1]
    good = tree["mnli@0/adapter_model.safetensors"]
    tree["mnli@0/adapter_model.safetensors"] = good[:-1] + bytes([good[-1] ^ 1])
    other = Library(tmp_path / "b")
    with pytest.raises(CorruptArtifactError, match="not what was written"):
        pull(other, "me/prompts", api=hub)
    assert other.names() == []
    tree["mnli@0/adapter_model.safetensors"] = good
    tree["../evil/manifest.json"] = tree["mnli@0/manifest.json"]
    tree["evil.dot/manifest.json"] = tree["mnli@0/manifest.json"]
    with pytest.raises(UsageError, match="cannot be a folder"):
        pull(other, "me/prompts", api=hub)
    tree["renamed/manifest.json"] = tree["mnli@0/manifest.json"]
    with pytest.raises(CorruptArtifactError, match="that of prompt 'mnli@0'"):
        pull(other, "me/prompts", ["renamed"], api=hub)
    assert other.names() == []


def test_failures_are_one_sentence(tmp_path: Path, hub: FakeHub) -> None:
    with pytest.raises(HubError, match=r"pull from me/gone failed \(401 Client Error\.\).*network"):
        pull(Library(tmp_path / "b"), "me/gone", api=hub)
    push(filled(tmp_path / "a", "mnli"), "me/prompts", api=hub)
    with pytest.raises(UnknownNameError, match="did you mean mnli@0"):
        pull(Library(tmp_path / "b"), "me/prompts", ["mnli@1"], api=hub)
    with pytest.raises(UsageError, match="no prompt to push"):
        push(Library(tmp_path / "empty"), "me/prompts", api=hub)


def test_one_prompt_becomes_a_repository_that_peft_reads(tmp_path: Path, hub: FakeHub) -> None:
    library = filled(tmp_path / "mine", "mnli")
    (name,) = library.names()
    stored = library.get(name)
    assert push_prompt(stored, "me/mnli-prompt", api=hub) == "c1"
    tree = hub.commits["me/mnli-prompt"][-1]
    assert tree == stored.files()
    assert hub.private["me/mnli-prompt"]
    from softprompt.library.formats.peft import import_peft, read_peft

    for file, data in tree.items():
        (tmp_path / "got").mkdir(exist_ok=True)
        (tmp_path / "got" / file).write_bytes(data)
    assert torch.equal(read_peft(tmp_path / "got").prompt, stored.prompt())
    (tmp_path / "got" / ".gitattributes").write_text("the Hub's own")
    again = import_peft(Library(tmp_path / "other"), tmp_path / "got")
    assert again.manifest == stored.manifest
    assert Library(tmp_path / "other").verify() == {}
