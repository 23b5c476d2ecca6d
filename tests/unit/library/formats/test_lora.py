"""Prompts as LoRA adapters for engines: PEFT answers with the same logits, and no text reaches a reserved id."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.cli import call
from tests.support.models import save_tiny, tiny_backbone

from softprompt.backbones.load import load_backbone
from softprompt.batch import TokenBatch
from softprompt.errors import IncompatibleBackboneError, UsageError
from softprompt.library.formats.lora import RANKS, Exported, export_lora, lora_tensors, rank_of
from softprompt.library.formats.reserved import reserve, with_prompt
from softprompt.library.record import PromptRecord
from softprompt.library.store import Library
from softprompt.prompts.stack import PromptStack

TEXTS = ["the cat sees a dog", "a", "One day; 3 dogs!\n\n caf\u00e9"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A Llama whose table ends where its tokenizer does, as SmolLM2's: ids must come out of the vocabulary."""
    folder = save_tiny("llama", tmp_path_factory.mktemp("model") / "llama")
    return load_backbone(str(folder), dtype="float32")


def filled(folder: Path, backbone: Any, **lengths: int) -> Library:
    library = Library(folder)
    for number, (name, length) in enumerate(lengths.items()):
        torch.manual_seed(number)
        wording = {"task": name, "form": "template", "template": "text: {text}", "columns": ["text"], "label_column": None,
                   "labels": ["cat", "dog"], "answers": None, "metrics": ["accuracy"], "chat": None}  # fmt: skip
        library.add(
            PromptRecord(
                task=name,
                prompt=torch.randn(length, backbone.hidden_size),
                backbone_name=backbone.name,
                name=name,
                backbone_fingerprint=backbone.fingerprint,
                backbone_kind="causal",
                wording=wording,
                scores={"score": 50.0},
            )
        )
    return library


def exported(library: Library, backbone: Any, out: Path, *names: str, **more: Any) -> list[Exported]:
    prompts = [library.get(name) for name in names or library.names()]
    return export_lora(backbone, prompts, out, model=backbone.name, **more)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_peft_loads_it_and_gives_the_logits_of_the_prompt_in_front(
    tmp_path: Path, backbone: Any, dtype: torch.dtype
) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    library = filled(tmp_path / "lib", backbone, films=3, music=3)
    library.add(_again(library, "films", prompt=library.get("films").prompt().to(dtype)), replace=True)
    (made,) = exported(library, backbone, tmp_path / "out")
    assert (made.prompt_length, made.rank, len(made.reserved)) == (3, 8, 3)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "tokenizer")
    base = AutoModelForCausalLM.from_pretrained(backbone.name, dtype=torch.float32)
    for name in ("films", "music"):
        model = peft.PeftModel.from_pretrained(base, tmp_path / "out" / "adapters" / name, adapter_name=name)
        model.set_adapter(name)
        prompt = library.get(name).prompt().float()
        for text in TEXTS:
            with torch.no_grad():
                theirs = model(**tokenizer(text, return_tensors="pt")).logits[0, len(prompt) - 1 :]
            ids = backbone.tokenize_inputs([text])[0]
            embeds = torch.cat([prompt, backbone.embedding_table()[ids]])
            with torch.no_grad():
                ours = backbone.hf_model(inputs_embeds=embeds[None]).logits[0, len(prompt) - 1 :]
            torch.testing.assert_close(theirs, ours, atol=2e-5, rtol=1e-5)
        base = model.unload()


def _again(library: Library, stored: str, **changed: Any) -> PromptRecord:
    facts = library.get(stored).manifest
    return PromptRecord(
        **{"task": facts.task, "backbone_name": facts.backbone_name, "backbone_fingerprint": facts.backbone_fingerprint,
           "backbone_kind": "causal", "name": stored, "wording": facts.wording, **changed}
    )  # fmt: skip


def test_peft_continues_texts_as_the_backbone_does(tmp_path: Path, backbone: Any) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    library = filled(tmp_path / "lib", backbone, films=2)
    exported(library, backbone, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "tokenizer")
    base = AutoModelForCausalLM.from_pretrained(backbone.name, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, tmp_path / "out" / "adapters" / "films")
    given_ids = tokenizer(TEXTS[0], return_tensors="pt")
    out = model.generate(**given_ids, max_new_tokens=6, do_sample=False, pad_token_id=0)
    batch = TokenBatch.of(backbone.tokenize_inputs(TEXTS[:1]))
    prompts = PromptStack(library.get("films").prompt()[None])(torch.zeros(1, dtype=torch.int64))
    (ours,) = backbone.generate(batch, prompts, 6)
    assert out[0, given_ids["input_ids"].shape[1] :].tolist()[: len(ours)] == ours


def test_no_text_reaches_a_reserved_id(backbone: Any) -> None:
    reserved = reserve(backbone.tokenizer, backbone.vocab_size, 12, key="k", protected=["cat", " dog"])
    made = with_prompt(backbone.tokenizer, reserved)
    assert reserved.rare, "this vocabulary is used up, so ordinary tokens must be among them"
    old = [backbone.tokenizer.convert_ids_to_tokens(i) for i in reserved.ids]
    spelled = [backbone.tokenizer.convert_tokens_to_string([token]) for token in old]

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.sampled_from([*spelled, *old, "cat", " ", "\n"]) | st.text(max_size=5), max_size=8).map("".join))
    def check(text: str) -> None:
        ids = made(text)["input_ids"]
        assert ids[:12] == list(reserved.ids)
        assert not set(ids[12:]) & set(reserved.ids)
        plain = backbone.tokenizer(text)["input_ids"]
        if not set(plain) & set(reserved.ids):
            assert ids[12:] == plain
        assert made.decode(ids, skip_special_tokens=True) == made.decode(ids[12:], skip_special_tokens=True)

    check()


def test_words_in_use_are_not_taken(backbone: Any) -> None:
    free = reserve(backbone.tokenizer, backbone.vocab_size, 12, key="k", protected=[])
    words = [backbone.tokenizer.convert_tokens_to_string([token]) for token in free.rare[:3]]
    kept = reserve(backbone.tokenizer, backbone.vocab_size, 12, key="k", protected=words)
    assert not set(kept.rare) & set(free.rare[:3])
    roles = {backbone.tokenizer.bos_token_id, backbone.tokenizer.eos_token_id, backbone.tokenizer.pad_token_id}
    assert not roles & set(free.ids)


def test_rows_that_no_token_has_are_taken_first() -> None:
    tokenizer = tiny_backbone("llama").tokenizer
    top = max(tokenizer.get_vocab().values())
    reserved = reserve(tokenizer, top + 11, 10, key="k", protected=[])
    assert reserved.ids == tuple(range(top + 1, top + 11))
    assert reserved.rare == ()
    made = with_prompt(tokenizer, reserved)
    for text in TEXTS:
        assert made(text)["input_ids"] == [*reserved.ids, *tokenizer(text)["input_ids"]]
    with pytest.raises(UsageError, match=r"needs 100000 ids that no text holds.*shorter prompt"):
        reserve(tokenizer, top + 11, 100_000, key="k", protected=[])


CHAT = "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}{% if add_generation_prompt %}[a]{% endif %}"


def test_conversations_begin_with_the_prompt_and_may_not_spell_it(backbone: Any) -> None:
    from copy import deepcopy

    tokenizer = deepcopy(backbone.tokenizer)
    tokenizer.chat_template = CHAT
    reserved = reserve(tokenizer, backbone.vocab_size, 4, key="k", protected=[])
    made = with_prompt(tokenizer, reserved)
    turns = [{"role": "user", "content": "the cat"}]
    plain = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True)["input_ids"]
    assert made.apply_chat_template(turns, add_generation_prompt=True, tokenize=True)["input_ids"] == [
        *reserved.ids,
        *plain,
    ]
    turns[0]["content"] += reserved.marks[1]
    with pytest.raises(Exception, match="reserved for soft prompts"):
        made.apply_chat_template(turns, tokenize=True)


def test_an_export_grows_and_stays_one(tmp_path: Path, backbone: Any) -> None:
    library = filled(tmp_path / "lib", backbone, films=3, music=3, long=5)
    out = tmp_path / "out"
    (first,) = exported(library, backbone, out, "films")
    tokenizer = (out / "tokenizer" / "tokenizer.json").read_bytes()
    (second,) = exported(library, backbone, out, "music")
    assert (second.added, second.prompts, second.reserved) == (("music",), ("films", "music"), first.reserved)
    assert (out / "tokenizer" / "tokenizer.json").read_bytes() == tokenizer
    with pytest.raises(UsageError, match=r"holds films already: add --replace"):
        exported(library, backbone, out, "films")
    exported(library, backbone, out, "films", replace=True)
    with pytest.raises(UsageError, match=r"prompts of 3 tokens and these have 5"):
        exported(library, backbone, out, "long")
    with pytest.raises(UsageError, match="one tokenizer for all"):
        exported(library, backbone, out)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "file").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        exported(library, backbone, tmp_path / "else", "films")


def test_several_lengths_become_an_export_each(tmp_path: Path, backbone: Any) -> None:
    library = filled(tmp_path / "lib", backbone, films=3, music=3, long=9)
    made = exported(library, backbone, tmp_path / "out")
    assert [(one.folder.name, one.prompts, one.rank) for one in made] == [
        ("length-3", ("films", "music"), 8),
        ("length-9", ("long",), 16),
    ]
    assert len({len(one.reserved) for one in made}) == 2


def test_ranks_are_those_that_vllm_takes() -> None:
    assert [rank_of(length) for length in (1, 2, 8, 9, 100, 257, 321, 512)] == [1, 8, 8, 16, 128, 320, 512, 512]
    with pytest.raises(UsageError, match="at most 512"):
        rank_of(513)
    prompt, rows = torch.randn(3, 4), torch.randn(3, 4)
    a, b = lora_tensors(prompt, rows, [7, 2, 5], 10, 8)
    assert (a.shape, b.shape) == ((8, 10), (4, 8))
    change = (b @ a).T
    torch.testing.assert_close(change[[7, 2, 5]] + rows, prompt)
    assert not change[[0, 1, 3, 4, 6, 8, 9]].any()
    assert RANKS[-1] == 512


def test_what_engines_do_not_take_is_refused_with_the_way_out(tmp_path: Path, backbone: Any) -> None:
    for kind, words in (
        ("gpt2", r"no adapter on the embedding of GPT2LMHeadModel.*prompt_embeds"),
        ("t5", "decoder-only"),
    ):
        other = tiny_backbone(kind)
        library = filled(tmp_path / kind, other, films=2)
        with pytest.raises(UsageError, match=words):
            export_lora(other, [library.get("films")], tmp_path / "out", model="x")
    library = filled(tmp_path / "lib", backbone, films=2)
    with pytest.raises(IncompatibleBackboneError):
        export_lora(tiny_backbone("llama", seed=5), [library.get("films")], tmp_path / "out", model="x")
    library.add(_again(library, "films", prompt=torch.randn(2, backbone.hidden_size), name="a=b"))
    with pytest.raises(UsageError, match="'=' or ','"):
        exported(library, backbone, tmp_path / "out", "a=b")
    assert not (tmp_path / "out").exists()


def test_the_script_names_every_adapter(tmp_path: Path, backbone: Any) -> None:
    library = filled(tmp_path / "lib", backbone, films=3, music=3)
    exported(library, backbone, tmp_path / "o u$t")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "vllm").write_text('#!/bin/sh\nprintf "%s\\n" "$VLLM_ALLOW_RUNTIME_LORA_UPDATING" "$@"\n')
    (bin_ / "vllm").chmod(0o755)
    done = subprocess.run(
        [tmp_path / "o u$t" / "serve.sh", "--port", "1"],
        env={"PATH": f"{bin_}:/usr/bin:/bin"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = done.stdout.splitlines()
    assert told[:3] == ["True", "serve", backbone.name]
    for name in ("films", "music"):
        assert f"{name}={tmp_path}/o u$t/adapters/{name}" in told
    assert told[told.index("--max-lora-rank") + 1] == "8"
    assert told[told.index("--tokenizer") + 1] == f"{tmp_path}/o u$t/tokenizer"
    assert told[-2:] == ["--port", "1"]


def test_the_other_files_say_what_is_there(tmp_path: Path, backbone: Any) -> None:
    yaml = pytest.importorskip("yaml")
    from huggingface_hub import ModelCard

    library = filled(tmp_path / "lib", backbone, films=3, music=3)
    (made,) = exported(library, backbone, tmp_path / "out")
    config = yaml.safe_load((tmp_path / "out" / "ray_serve.yaml").read_text())
    (engine,) = config["applications"][0]["args"]["llm_configs"]
    assert engine["engine_kwargs"]["max_lora_rank"] == 8
    assert engine["model_loading_config"]["model_source"] == backbone.name
    text = (tmp_path / "out" / "README.md").read_text()
    assert all(word in text for word in ("`films`", "`music`", "load_lora_adapter", "sglang"))
    assert all(json.dumps(token, ensure_ascii=False) in text for token in made.rare)
    card = ModelCard((tmp_path / "out" / "adapters" / "films" / "README.md").read_text())
    assert card.data.to_dict()["library_name"] == "peft"
    assert 'model="films"' in card.text
    assert "text: {text}" in card.text


def test_the_command_exports_a_whole_library(tmp_path: Path, backbone: Any, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path / "lib", backbone, films=3, music=3)
    out = str(tmp_path / "out")
    code, told, err = call(capsys, "library", "export", str(tmp_path / "lib"), out, "--format", "lora", "--json")
    assert code == 0, err
    assert json.loads(told)["exports"][0]["prompts"] == ["films", "music"]
    code, told, err = call(capsys, "library", "export", str(tmp_path / "lib"), "films", out, "--format", "lora")
    assert code == 2
    assert "--replace" in err
    code, told, err = call(
        capsys, "library", "export", str(tmp_path / "lib"), "films", out, "--format", "lora", "--replace"
    )
    assert code == 0, err
    assert re.search(r"next: .*serve.sh, then ask for model=\"films\"", told)
    code, _, err = call(capsys, "library", "export", str(tmp_path / "lib"), "films", "music", str(tmp_path / "x"))
    assert code == 2
    assert "--format lora" in err
