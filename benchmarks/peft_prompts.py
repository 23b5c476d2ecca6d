"""PEFT with many soft prompts of one backbone: what the serving benchmarks compare with. Letters: N prompts, P prompt tokens, H width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def peft_answers(backbone: Any, prompts_NPH: Any, new_tokens: int) -> Callable[[int, Sequence[str]], list[str]]:
    """An adapter a prompt; what is returned switches to one (``set_adapter``) and generates the answers to some texts greedily."""
    import torch
    from peft import PromptTuningConfig, TaskType, get_peft_model

    plain, causal = backbone.hf_model, backbone.kind == "causal"
    shape: dict[str, Any] = {}
    if plain.config.model_type == "encoder-decoder":
        encoder = plain.config.encoder
        plain.config.vocab_size = encoder.vocab_size
        shape = {"token_dim": encoder.hidden_size, "num_layers": encoder.num_hidden_layers,
                 "num_attention_heads": encoder.num_attention_heads}  # fmt: skip
    config = PromptTuningConfig(
        task_type=TaskType.CAUSAL_LM if causal else TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=prompts_NPH.shape[1],
        num_transformer_submodules=1, inference_mode=True, **shape,
    )  # fmt: skip
    model: Any = get_peft_model(plain, config, adapter_name="0")
    for number in range(1, len(prompts_NPH)):
        model.add_adapter(str(number), config)
    with torch.no_grad():
        for number, prompt in enumerate(prompts_NPH):
            weight = model.prompt_encoder[str(number)].embedding.weight
            weight.data = prompt.to(weight.device, backbone.dtype)
    model.to(backbone.device).eval()

    @torch.no_grad()
    def answers(number: int, texts: Sequence[str]) -> list[str]:
        model.set_adapter(str(number))
        ids = backbone.tokenize_inputs(list(texts))
        width = max(map(len, ids))
        fill = [[0] * (width - len(row)) for row in ids]
        # Answers are written behind the texts, so a decoder's padding stands in front.
        places = [(f, [1] * len(row)) if causal else ([1] * len(row), f) for row, f in zip(ids, fill, strict=True)]
        mask = torch.tensor([[*left, *right] for left, right in places])
        given = torch.full_like(mask, getattr(backbone, "pad_id", 0))  # masked: any will do
        given[mask.bool()] = torch.tensor([token for row in ids for token in row])
        out = model.generate(
            input_ids=given.to(backbone.device), attention_mask=mask.to(backbone.device), max_new_tokens=new_tokens,
            do_sample=False, num_beams=1,
        )  # fmt: skip
        written: list[str] = backbone.decode(out[:, width if causal else 1 :].tolist())
        return written

    return answers
