"""Short loss curves that must not change: a refactor changes nothing.

python -m tests.golden.curves          prints how today's curves differ from the stored ones
python -m tests.golden.curves --write  stores today's
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

STORED = Path(__file__).with_name("curves.json")
VOCABULARY = 512  # more than the tiny tokenizers have pieces
STEPS = 8


def _model(kind):
    from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

    torch.manual_seed(7)
    if kind == "encdec":
        return _pair()
    if kind == "t5":
        return T5ForConditionalGeneration(
            T5Config(
                vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
                feed_forward_proj="gated-gelu", decoder_start_token_id=0, tie_word_embeddings=False,
            )
        )  # fmt: skip
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=64, bos_token_id=0, eos_token_id=1, pad_token_id=None,
        )
    )  # fmt: skip


def _pair():
    from transformers import BertConfig, BertLMHeadModel, BertModel, EncoderDecoderModel

    shape = {
        "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 64,
    }  # fmt: skip
    encoder = BertModel(BertConfig(**shape), add_pooling_layer=False)
    decoder = BertLMHeadModel(BertConfig(**shape, is_decoder=True, add_cross_attention=True))
    model = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    model.config.decoder_start_token_id, model.config.eos_token_id, model.config.pad_token_id = 2, 3, 0
    return model


def _weights(model):
    """Weights from numpy's generator, whose stream is fixed by contract."""
    rng = np.random.default_rng(11)
    for parameter in model.parameters():
        values = rng.standard_normal(parameter.shape) * (0.5 if parameter.dim() > 1 else 0.1)
        parameter.data = torch.tensor(values + (parameter.dim() == 1), dtype=torch.float64)
    return model.eval()


def _split():
    from softprompt.tasks.example import Example
    from softprompt.tasks.splits import EncodedSplit, Ragged

    rng = np.random.default_rng(3)

    def ragged(low, high):
        rows = [np.append(rng.integers(2, VOCABULARY, rng.integers(low, high)), 1).astype(np.int32) for _ in range(30)]
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        return Ragged(flat=np.concatenate(rows), offsets=offsets)

    examples = tuple(Example(key=f"golden/{i}", inputs="", targets="") for i in range(30))
    return EncodedSplit(
        examples=examples, fingerprint="golden", name="train", cut_inputs=0, cut_targets=0, skipped=0,
        input_ids=ragged(2, 12), target_ids=ragged(1, 4),
    )  # fmt: skip


def curve(kind: str, optimizer: str, dropout: float) -> list[float]:
    """Losses (nats a target token) of one run over a few steps."""
    from tests.support.models import tiny_tokenizer

    from softprompt.backbones.load import wrap
    from softprompt.prompts.stack import PromptStack
    from softprompt.training.group import Group
    from softprompt.training.runs import Run
    from softprompt.training.settings import TrainSettings

    tokenizer = tiny_tokenizer({"encdec": "bert"}.get(kind, kind))
    backbone = wrap(_weights(_model(kind)), tokenizer, name="golden", fingerprint="g")
    settings = TrainSettings(
        steps=STEPS, batch_size=5, prompt_length=3, optimizer=optimizer, learning_rate=0.1, dropout=dropout, warmup_steps=2,
    )  # fmt: skip
    split = _split()
    run = Run(name="golden", seed=1, train=(split,), task=None, validation=split)
    start = torch.tensor(np.random.default_rng(5).standard_normal((1, 3, 16)), dtype=torch.float64)
    group = Group(backbone, PromptStack(start, tuned=True), [run], settings)
    for _ in range(STEPS):
        group.step()
    return group.losses[0]


CASES = [
    (kind, optimizer, dropout)
    for kind in ("t5", "llama", "encdec")
    for optimizer in ("adafactor", "adam")
    for dropout in (0.0, 0.1)
]


def name_of(case: tuple[str, str, float]) -> str:
    return "-".join(str(part) for part in case)


def main(arguments: list[str]) -> int:
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    today = {name_of(case): curve(*case) for case in CASES}
    for name, values in today.items():
        before = stored.get(name)
        change = (
            "new"
            if before is None
            else f"largest change {max(abs(a - b) for a, b in zip(before, values, strict=True)):.2e}"
        )
        print(f"{name:24} {change}")
    if "--write" in arguments:
        STORED.write_text(json.dumps(today, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
