"""What the layers of the Llama family and of GPT-2 are made of, read from a loaded Hugging Face module.

Letters: S packed positions, H width, F feed-forward width, A query heads, G key/value heads, K head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from softprompt.backbones.engine.formulas import ACTIVATIONS
from softprompt.backbones.engine.layers import Linear, Norm, fuse
from softprompt.backbones.engine.tree import Heads, Rotation

FAMILY = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gpt2")
"""Model types whose parity with transformers is tested (tests/parity/test_decoders.py)."""

_STEADY_ROPES = ("default", "linear", "llama3", "yarn")  # frequencies that do not depend on a text's length


@dataclass(frozen=True, eq=False)
class DecoderLayer:
    """One layer.

    Attributes:
        qkv: queries, keys and values stacked, [(A + 2 G) K, H].
        out: [H, A K].
        up: gate and value stacked, [2F, H]; [F, H] where nothing gates.
        down: [H, F].
        before_attention, before_feed: norms of what each part reads.
        after_attention, after_feed: norms of what each part gives (Gemma 2 and 3); None for none.
        q_norm, k_norm: norms of single heads (Qwen 3, Gemma 3); None for none.
        heads: form of its attention.
        rope: which of the form's rotations it uses.
    """

    qkv: Linear
    out: Linear
    up: Linear
    down: Linear
    before_attention: Norm
    before_feed: Norm
    after_attention: Norm | None
    after_feed: Norm | None
    q_norm: Norm | None
    k_norm: Norm | None
    heads: Heads
    rope: int


@dataclass(frozen=True)
class LayerPlan:
    """What is known of a layer without its weights."""

    heads: Heads
    rope: int


@dataclass(frozen=True, eq=False)
class Form:
    """What a model's layers have in common.

    Attributes:
        activation: of the gate, or of all where nothing gates.
        ropes: inverse frequencies float32 [K / 2] and the factor on cosines and sines, by kind of rotation.
        plan: by layer.
        final_softcap: of the logits; None for none.
        unit_norms: norm weights are stored less one (Gemma).
        gated: feed-forward parts have a gate.
        place_LH: what is added to the embedding at each position (GPT-2); None for nothing.
    """

    activation: str
    ropes: tuple[tuple[Tensor, float], ...]
    plan: tuple[LayerPlan, ...]
    final_softcap: float | None = None
    unit_norms: bool = False
    gated: bool = True
    place_LH: Tensor | None = None

    def norm(self, module: Any) -> Norm:
        """A norm's weight and epsilon; Gemma's 1 + w is kept in float32, which bfloat16 would round."""
        weight = module.weight.detach()
        if self.unit_norms:
            weight = 1.0 + (weight if weight.dtype == torch.float64 else weight.float())
        bias = getattr(module, "bias", None)
        epsilon = getattr(module, "variance_epsilon", None) or module.eps
        return Norm(weight, None if bias is None else bias.detach(), epsilon)


def reads(model: Any) -> bool:
    """Whether a model belongs to the family in all that its config says."""
    config = model.config
    if config.model_type not in FAMILY or getattr(config, "use_bidirectional_attention", False):
        return False
    if config.model_type == "gpt2":
        return _reads_gpt2(model)
    if not hasattr(model, "model") or not hasattr(model.model, "rotary_emb"):
        return False
    activation = getattr(config, "hidden_activation", None) or config.hidden_act
    types = model.model.rotary_emb.rope_type
    ropes = set(types.values()) if isinstance(types, dict) else {types}
    return activation in ACTIVATIONS and ropes <= set(_STEADY_ROPES)


def _reads_gpt2(model: Any) -> bool:
    config = model.config
    plain = config.scale_attn_weights and not config.scale_attn_by_inverse_layer_idx
    plain = plain and not config.reorder_and_upcast_attn and not config.add_cross_attention
    return bool(plain) and hasattr(model, "transformer") and config.activation_function in ACTIVATIONS


def form_of(model: Any) -> Form:
    """The form of a model that ``reads`` accepts."""
    if model.config.model_type == "gpt2":
        return _gpt2_form(model)
    config, rotary = model.config, model.model.rotary_emb
    if hasattr(rotary, "inv_freq"):
        kinds: list[str | None] = [None]
        ropes = [(rotary.inv_freq.detach().float(), float(rotary.attention_scaling))]
    else:
        kinds = list(rotary.rope_type)
        ropes = [
            (getattr(rotary, f"{kind}_inv_freq").detach().float(), float(getattr(rotary, f"{kind}_attention_scaling")))
            for kind in kinds
        ]
    plan = []
    for layer in model.model.layers:
        attention = layer.self_attn
        window = getattr(attention, "sliding_window", None)
        if config.model_type == "mistral":
            window = config.sliding_window
        heads = Heads(
            queries=config.num_attention_heads,
            groups=config.num_key_value_heads,
            width=attention.head_dim,
            scale=float(attention.scaling),
            window=window,
            softcap=getattr(attention, "attn_logit_softcapping", None),
        )
        plan.append(LayerPlan(heads, kinds.index(attention.layer_type) if kinds[0] is not None else 0))
    return Form(
        activation=getattr(config, "hidden_activation", None) or config.hidden_act,
        ropes=tuple(ropes),
        plan=tuple(plan),
        final_softcap=getattr(config, "final_logit_softcapping", None),
        unit_norms=config.model_type.startswith("gemma"),
    )


def _gpt2_form(model: Any) -> Form:
    """Positions are learned: what rotates does so by nothing."""
    config = model.config
    width = config.n_embd // config.n_head
    heads = Heads(
        queries=config.n_head, groups=config.n_head, width=width, scale=width**-0.5, window=None, softcap=None
    )
    table = model.transformer.wpe.weight.detach()
    still = torch.zeros(width // 2, device=table.device)
    return Form(
        activation=config.activation_function,
        ropes=((still, 1.0),),
        plan=(LayerPlan(heads, 0),) * config.n_layer,
        gated=False,
        place_LH=table,
    )


def last_norm_of(model: Any) -> Any:
    """The module of the norm before the output head."""
    return model.transformer.ln_f if model.config.model_type == "gpt2" else model.model.norm


def layers_of(model: Any) -> list[DecoderLayer]:
    """The layers of a model that ``reads`` accepts; its weights become views of the fused ones."""
    form = form_of(model)
    if model.config.model_type == "gpt2":
        return _gpt2_layers(model, form)
    made = []
    for layer, plan in zip(model.model.layers, form.plan, strict=True):
        attention, feed = layer.self_attn, layer.mlp
        sandwiched = hasattr(layer, "post_feedforward_layernorm")
        before_feed = layer.pre_feedforward_layernorm if sandwiched else layer.post_attention_layernorm
        made.append(
            DecoderLayer(
                qkv=fuse([attention.q_proj, attention.k_proj, attention.v_proj]),
                out=fuse([attention.o_proj]),
                up=fuse([feed.gate_proj, feed.up_proj]),
                down=fuse([feed.down_proj]),
                before_attention=form.norm(layer.input_layernorm),
                before_feed=form.norm(before_feed),
                after_attention=form.norm(layer.post_attention_layernorm) if sandwiched else None,
                after_feed=form.norm(layer.post_feedforward_layernorm) if sandwiched else None,
                q_norm=form.norm(attention.q_norm) if hasattr(attention, "q_norm") else None,
                k_norm=form.norm(attention.k_norm) if hasattr(attention, "k_norm") else None,
                heads=plan.heads,
                rope=plan.rope,
            )
        )
    return made


def _gpt2_layers(model: Any, form: Form) -> list[DecoderLayer]:
    return [
        DecoderLayer(
            qkv=fuse([layer.attn.c_attn]),
            out=fuse([layer.attn.c_proj]),
            up=fuse([layer.mlp.c_fc]),
            down=fuse([layer.mlp.c_proj]),
            before_attention=form.norm(layer.ln_1),
            before_feed=form.norm(layer.ln_2),
            after_attention=None,
            after_feed=None,
            q_norm=None,
            k_norm=None,
            heads=plan.heads,
            rope=plan.rope,
        )
        for layer, plan in zip(model.transformer.h, form.plan, strict=True)
    ]


def rotation_of(rope: tuple[Tensor, float], position_S: Tensor) -> Rotation:
    """The rotation of positions [S], in float32 as transformers computes it, from inverse frequencies [K / 2] and a scale."""
    inverse, factor = rope
    angle = position_S[:, None].float() * inverse.to(position_S.device)
    return Rotation(angle.cos() * factor, angle.sin() * factor)
