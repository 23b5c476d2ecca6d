"""A prompt on a live Hugging Face model: generate with its options, Trainer, the harness; the same answers as ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.models import KINDS, SEQ2SEQ_KINDS, corpus, random_batch, tiny_backbone

from softprompt.backbones.base import Backbone
from softprompt.batch import TokenBatch
from softprompt.errors import DataError, IncompatibleBackboneError, UsageError
from softprompt.inference.hf_model import PromptedModel, attached
from softprompt.prompts.stack import PromptStack

TEXTS = corpus(4, seed=3)


def padded(backbone: Backbone, texts: list[str], side: str = "right") -> dict[str, torch.Tensor]:
    ids = backbone.tokenize_inputs(texts)
    width = max(map(len, ids))
    rows, masks = [], []
    for row in ids:
        gap = [0] * (width - len(row))
        rows.append(row + gap if side == "right" else gap + row)
        masks.append([1] * len(row) + gap if side == "right" else gap + [1] * len(row))
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(masks)}


def ours(backbone: Backbone, prompt: torch.Tensor, texts: list[str], most: int = 6) -> list[list[int]]:
    batch = TokenBatch.of(backbone.tokenize_inputs(texts))
    return backbone.generate(batch, PromptStack(prompt[None])(torch.zeros(len(texts), dtype=torch.int64)), most)


def answers(backbone: Backbone, output: torch.Tensor, inputs: dict[str, torch.Tensor]) -> list[list[int]]:
    end = backbone.tokenize_targets(["a"])[0][-1]
    start = inputs["input_ids"].shape[1] if backbone.kind == "causal" else 1
    rows = []
    for row in output[:, start:].tolist():
        rows.append(row[: row.index(end)] if end in row else row)
    return rows


def options(backbone: Backbone) -> dict[str, Any]:
    end = backbone.tokenize_targets(["a"])[0][-1]
    return {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": end}


# Hugging Face's generate continues decoder-only rows at their right end, so these are padded on the left alone.
SIDES = [(kind, "left") for kind in KINDS] + [(kind, "right") for kind in SEQ2SEQ_KINDS]


@pytest.mark.parametrize(("kind", "side"), SIDES)
def test_greedy_answers_are_ours(kind: str, side: str) -> None:
    backbone = tiny_backbone(kind)
    prompt = torch.randn(5, backbone.hidden_size)
    inputs = padded(backbone, TEXTS, side)
    expected = ours(backbone, prompt, TEXTS)
    prompted = PromptedModel(backbone.hf_model, prompt)
    assert answers(backbone, prompted.generate(**inputs, **options(backbone)), inputs) == expected
    start = (
        {} if backbone.kind == "causal" else {"decoder_start_token_id": backbone.hf_model.config.decoder_start_token_id}
    )
    plain = backbone.hf_model.generate(**inputs, **options(backbone), **start)
    with attached(backbone.hf_model, prompt) as model:
        assert answers(backbone, model.generate(**inputs, **options(backbone)), inputs) == expected
        assert answers(backbone, model.generate(inputs["input_ids"], attention_mask=inputs["attention_mask"], **options(backbone)), inputs) == expected  # fmt: skip
        with pytest.raises(UsageError, match="has a prompt attached"), attached(model, prompt):
            pass
    assert torch.equal(backbone.hf_model.generate(**inputs, **options(backbone), **start), plain), (
        "detached, it is as before"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_forward_loss_and_logits_are_ours(kind: str) -> None:
    backbone = tiny_backbone(kind)
    prompt = torch.randn(5, backbone.hidden_size)
    batch = random_batch(backbone, rows=3)
    stack = PromptStack(prompt[None])(torch.zeros(3, dtype=torch.int64))
    expected = backbone.example_losses(batch, stack)
    mean = float(expected.nll_B.sum() / expected.tokens_B.sum())
    if backbone.kind == "causal":
        rows = [
            torch.cat([batch.input_BT[b, :n], batch.target_BD[b, :d]])
            for b, (n, d) in enumerate(zip(batch.input_length_B, batch.target_length_B, strict=True))
        ]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_side="left")
        mask = torch.nn.utils.rnn.pad_sequence(
            [torch.ones_like(r) for r in rows], batch_first=True, padding_side="left"
        )
        labels = torch.full_like(ids, -100)
        for b, d in enumerate(batch.target_length_B.tolist()):
            labels[b, ids.shape[1] - d :] = batch.target_BD[b, :d]
    else:
        width = batch.input_BT.shape[1]
        ids, mask = batch.input_BT, (torch.arange(width)[None] < batch.input_length_B[:, None]).long()
        depth = torch.arange(batch.target_BD.shape[1])[None]
        labels = torch.where(depth < batch.target_length_B[:, None], batch.target_BD, -100)
    prompted = PromptedModel(backbone.hf_model, prompt, tuned=True)
    out = prompted(input_ids=ids, attention_mask=mask, labels=labels)
    assert float(out.loss.detach()) == pytest.approx(mean, rel=1e-4)
    assert out.logits.shape[1] == labels.shape[1]
    out.loss.backward()
    assert float(prompted.prompt_PH.grad.norm()) > 0
    with attached(backbone.hf_model, prompt) as model:
        assert float(model(input_ids=ids, attention_mask=mask, labels=labels).loss.detach()) == pytest.approx(
            mean, rel=1e-4
        )


def test_beams_and_constraints() -> None:
    backbone = tiny_backbone("t5")
    prompt = torch.randn(5, backbone.hidden_size)
    inputs = padded(backbone, TEXTS)
    prompted = PromptedModel(backbone.hf_model, prompt)
    beams = prompted.generate(**inputs, **options(backbone), num_beams=3, num_return_sequences=2)
    assert beams.shape[0] == 8
    # Beam search over the prompted model scores no worse than greedy search, by the model's own log-likelihood.
    more = {**options(backbone), "output_scores": True, "return_dict_in_generate": True}
    wide = prompted.generate(**inputs, **more, num_beams=4, length_penalty=0.0).sequences_scores
    narrow = prompted.generate(**inputs, **more, num_beams=2, length_penalty=0.0).sequences_scores
    assert float(wide.sum()) >= float(narrow.sum()) - 1e-4
    allowed = [5, 6, 1]
    held = prompted.generate(**inputs, **options(backbone), prefix_allowed_tokens_fn=lambda b, ids: allowed)
    assert set(held[:, 1:].flatten().tolist()) <= {*allowed, 0}
    causal = tiny_backbone("gpt2")
    rows = padded(causal, TEXTS, "left")
    found = PromptedModel(causal.hf_model, torch.randn(3, causal.hidden_size)).generate(
        **rows, **options(causal), num_beams=3, num_return_sequences=3, return_dict_in_generate=True
    )
    assert found.sequences.shape[0] == 12
    assert torch.equal(found.sequences[3, : rows["input_ids"].shape[1]], rows["input_ids"][1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_trainer_tunes_and_resumes_the_prompt_alone(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("accelerate")
    from transformers import Trainer, TrainingArguments

    backbone = tiny_backbone(kind)
    before = backbone.weights_digest()
    end = backbone.tokenize_targets(["yes"])[0]
    rows = []
    for text in corpus(32, seed=1):
        ids = backbone.tokenize_inputs([text], 8)[0][:8]
        ids = ids + [ids[-1]] * (8 - len(ids))
        goal = end
        if backbone.kind == "causal":
            rows.append({"input_ids": ids + goal, "labels": [-100] * 8 + goal})
        else:
            rows.append({"input_ids": ids, "labels": goal})

    def train(steps: int, resume: bool = False) -> tuple[Any, float]:
        prompted = PromptedModel(backbone.hf_model, torch.zeros(4, backbone.hidden_size), tuned=True)
        arguments = TrainingArguments(
            output_dir=str(tmp_path / "run"),
            max_steps=steps,
            learning_rate=0.3,
            per_device_train_batch_size=8,
            save_steps=10,
            logging_steps=5,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            remove_unused_columns=False,
            lr_scheduler_type="constant",
        )
        trainer = Trainer(model=prompted, args=arguments, train_dataset=rows)
        result = trainer.train(resume_from_checkpoint=resume)
        return prompted, float(result.training_loss)

    first, _ = train(10)
    saved = list((tmp_path / "run" / "checkpoint-10").glob("*.safetensors"))
    assert saved
    assert saved[0].stat().st_size < 4 * 4 * backbone.hidden_size + 1000, "a checkpoint holds the prompt alone"
    second, _ = train(20, resume=True)
    assert float(first.prompt_PH.detach().norm()) > 0
    assert not torch.equal(first.prompt_PH, second.prompt_PH)
    batch = TokenBatch.of(backbone.tokenize_inputs(corpus(8, seed=1)), [end] * 8)

    def loss(prompt: torch.Tensor) -> float:
        return float(
            backbone.example_losses(batch, PromptStack(prompt[None])(torch.zeros(8, dtype=torch.int64))).nll_B.mean()
        )

    assert loss(second.prompt_PH.detach()) < loss(torch.zeros(4, backbone.hidden_size)), "what Trainer tuned works here"
    assert backbone.weights_digest() == before


def test_state_holds_the_prompt_alone() -> None:
    backbone = tiny_backbone("t5")
    prompted = PromptedModel(backbone.hf_model, torch.ones(2, backbone.hidden_size))
    assert list(prompted.state_dict()) == ["prompt_PH"]
    prompted.load_state_dict({"prompt_PH": torch.zeros(2, backbone.hidden_size)})
    assert not prompted.prompt_PH.any()
    with pytest.raises(UsageError, match="prompt_PH"):
        prompted.load_state_dict({"other": torch.zeros(1)})


def test_misuse_is_one_sentence() -> None:
    backbone = tiny_backbone("t5")
    with pytest.raises(IncompatibleBackboneError, match="width 3"):
        PromptedModel(backbone.hf_model, torch.ones(2, 3))
    with pytest.raises(DataError):
        PromptedModel(backbone.hf_model, torch.ones(3))
    prompted = PromptedModel(backbone.hf_model, torch.ones(2, backbone.hidden_size))
    with pytest.raises(UsageError, match="max_new_tokens"):
        prompted.generate(torch.ones(1, 2, dtype=torch.int64), max_length=5)
    with (
        attached(backbone.hf_model, torch.ones(2, backbone.hidden_size)) as model,
        pytest.raises(UsageError, match="name every"),
    ):
        model.generate(torch.ones(1, 2, dtype=torch.int64), None)
