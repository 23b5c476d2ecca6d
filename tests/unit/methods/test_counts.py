"""Counts of tuned parameters, against loaded models and the papers' statements."""

from __future__ import annotations

import mmap
import os

import pytest
import torch
from tests.support.models import tiny_backbone

from softprompt.backbones.engine.host import peak_memory_bytes, start_peak_memory
from softprompt.backbones.shapes import T5_SIZES, Shape, t5_v1_1
from softprompt.errors import UsageError
from softprompt.methods.counts import count


def test_t5_is_counted_as_transformers_counts_it() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=100, d_model=24, d_kv=8, d_ff=40, num_layers=3, num_decoder_layers=3, num_heads=4,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        model = T5ForConditionalGeneration(config)
    head = 0 if model.lm_head.weight is not model.shared.weight else 100 * 24
    assert t5_v1_1(100, 24, 40, 3, 4, 8).parameters == sum(p.numel() for p in model.parameters()) + head


def test_the_papers_ratio_is_computed() -> None:
    """SPoT: 410K tuned parameters against 11B, "27,000 times fewer" for T5 XXL."""
    xxl = T5_SIZES["t5-xxl"]
    prompt, model = count("prompt-tuning", xxl), count("model-tuning", xxl)
    assert prompt.tuned == 409_600
    assert model.tuned == 11_135_332_352
    assert round(prompt.fewer_times(model), -3) == 27_000
    assert prompt.stored_bytes == 4 * 409_600


def test_counts_of_every_method_for_any_backbone() -> None:
    backbone = tiny_backbone("t5")
    h = backbone.hidden_size
    shape = Shape(parameters=backbone.parameter_count, passed=0, width=h, layers=1)
    sharpt = count("sharpt", shape, prompt_length=3, skill_count=7, encoder_width=5)
    assert (sharpt.tuned, sharpt.shared) == (3 * h + 5 * h + h + h * h + h, 35)
    assert count("model-tuning", shape).percent == 100
    with pytest.raises(UsageError, match="skill_count and encoder_width"):
        count("sharpt", shape)
    with pytest.raises(UsageError, match="'adapters'"):
        count("adapters", shape)


def test_peak_memory_is_that_of_this_process() -> None:
    assert 10_000_000 < peak_memory_bytes(torch.device("cpu")) < 1 << 40


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the system cannot forget an old peak")
def test_a_new_measurement_forgets_what_was_freed() -> None:
    cpu, size = torch.device("cpu"), 240_000_000
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # the allocator may keep what is freed
    block.write(b"x" * size)
    with_it = peak_memory_bytes(cpu)
    block.close()
    start_peak_memory(cpu)
    assert peak_memory_bytes(cpu) < with_it - size // 2
