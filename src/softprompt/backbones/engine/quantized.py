"""Frozen weights in 8 or 4 bits, with gradients through them.

A weight is stored as integers with one scale for every 64 inputs, as in the Q8_0 and Q4_0 formats of llama.cpp: the
largest number of a group gets the most negative integer, the rest are rounded to multiples of the scale. It is made
whole, in the activations' dtype, while a product with it is computed, forward and backward; nothing whole is kept in
between. Tables, output head, norms and biases stay as they are.

Letters: O outputs, I inputs, G groups of inputs.
"""

# mypy: disable-error-code="no-untyped-call, no-any-return"

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

GROUP = 64
"""Inputs that share a scale: a quarter of a bit a weight for bfloat16 scales."""

BITS = {"int8": 8, "int4": 4}


@dataclass(frozen=True, eq=False)
class Quantized:
    """A weight [O, I] in few bits.

    Attributes:
        codes: int8 [O, G, 64] in 8 bits; uint8 [O, G, 32] in 4, the first half of a group in the low halves of the
            bytes and the second in the high ones, each plus 8.
        scale: bfloat16 [O, G].
        inputs: I; the last group is filled up with zeros.
        dtype: of the whole weight.
    """

    codes: Tensor
    scale: Tensor
    inputs: int
    dtype: torch.dtype

    @property
    def shape(self) -> torch.Size:
        """(O, I)."""
        return torch.Size((self.codes.shape[0], self.inputs))

    @property
    def bits(self) -> int:
        """8 or 4."""
        return 8 if self.codes.dtype == torch.int8 else 4

    def dense(self) -> Tensor:
        """The whole weight [O, I]."""
        rows, groups = self.scale.shape
        # All in the weight's own dtype: mixed ones cost eight times as much on a CPU. Codes and scales are exact in it.
        if self.bits == 8:
            out = self.codes.to(self.dtype)
        else:
            half = GROUP // 2
            out = torch.empty(rows, groups, GROUP, dtype=self.dtype, device=self.codes.device)
            out[..., :half], out[..., half:] = self.codes & 15, self.codes >> 4
            out.sub_(8)
        out.mul_(self.scale.to(self.dtype)[..., None])
        return out.view(rows, groups * GROUP)[:, : self.inputs]

    @classmethod
    def of(cls, weight: Tensor, bits: int) -> Quantized:
        """A weight [O, I] of any float dtype in 8 or 4 bits, on its device."""
        rows, inputs = weight.shape
        groups = -(-inputs // GROUP)
        x = F.pad(weight.detach().float(), (0, groups * GROUP - inputs)).view(rows, groups, GROUP)
        most = 1 << (bits - 1)
        scale = (x.gather(-1, x.abs().argmax(-1, keepdim=True)) / -most).to(torch.bfloat16)
        steps = scale.float()
        codes = torch.where(steps == 0, 0.0, x / steps).round_().clamp_(-most, most - 1)
        if bits == 8:
            return cls(codes.to(torch.int8), scale[..., 0], inputs, weight.dtype)
        low, high = (codes + 8).to(torch.uint8).chunk(2, -1)
        return cls(low | (high << 4), scale[..., 0], inputs, weight.dtype)

    @classmethod
    def joined(cls, parts: Sequence[Quantized]) -> Quantized:
        """Several weights of the same inputs one above the other."""
        first = parts[0]
        codes, scale = torch.cat([p.codes for p in parts]), torch.cat([p.scale for p in parts])
        return cls(codes, scale, first.inputs, first.dtype)

    def rows(self, begin: int, end: int) -> Quantized:
        """Some outputs, as views."""
        return Quantized(self.codes[begin:end], self.scale[begin:end], self.inputs, self.dtype)

    def linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [..., I] through the affine map: [..., O]."""
        return _Linear.apply(x, self, bias)

    def product(self, x: Tensor, view: Callable[[Tensor], Tensor]) -> Tensor:
        """The batched product of x [batch, ..., I] and a view [batch, ...] of the whole weight [O, I]."""
        return _Product.apply(x, self, view)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Quantized, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return F.linear(x, weight.dense(), bias)

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, None, None]:
        return d_out @ ctx.weight.dense(), None, None


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Quantized, view: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.weight, ctx.view = weight, view
        return torch.bmm(x, view(weight.dense()))

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, None, None]:
        return torch.bmm(d_out, ctx.view(ctx.weight.dense()).transpose(1, 2)), None, None


class QuantizedLinear(torch.nn.Module):
    """A linear layer of a Hugging Face model with its weight in few bits.

    Args:
        stored: the weight.
        bias: [O], or None.
    """

    def __init__(self, stored: Quantized, bias: Tensor | None) -> None:
        super().__init__()
        self.inputs, self.dtype = stored.inputs, stored.dtype
        self.register_buffer("codes", stored.codes)
        self.register_buffer("scale", stored.scale)
        self.bias = None if bias is None else torch.nn.Parameter(bias.detach(), requires_grad=False)

    @property
    def stored(self) -> Quantized:
        """The weight."""
        return Quantized(self.codes, self.scale, self.inputs, self.dtype)

    @stored.setter
    def stored(self, value: Quantized) -> None:
        self.codes, self.scale = value.codes, value.scale

    @property
    def weight(self) -> Tensor:
        """The whole weight [O, I], made anew at every look: some Hugging Face layers ask for its dtype."""
        return self.stored.dense()

    def forward(self, x: Tensor) -> Tensor:
        return self.stored.linear(x, self.bias)


def turned(layer: Any) -> bool:
    """Whether it is a linear layer that stores its weight the other way round, [I, O], as GPT-2's do (``Conv1D``)."""
    return hasattr(layer, "nf") and layer.weight.dim() == 2


def quantize(model: Any, bits: int, device: torch.device) -> None:
    """Put the weights of a model's linear layers into few bits, one after the other, in place.

    The output head stays whole: it is one product a target token, and the one whose errors nothing averages out.

    Args:
        model: a Hugging Face model.
        bits: 8 or 4.
        device: where weights are rounded, and stay.
    """
    head = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if layer is head or not (isinstance(layer, torch.nn.Linear) or turned(layer)):
                continue
            weight = layer.weight.detach().to(device)
            stored = Quantized.of(weight.t() if turned(layer) else weight, bits)
            setattr(parent, name, QuantizedLinear(stored, layer.bias))


def precision_of(model: Any) -> str | None:
    """``int8`` or ``int4`` where a model's linear layers are quantised."""
    for module in model.modules():
        if isinstance(module, QuantizedLinear):
            return f"int{module.stored.bits}"
    return None


def parameter_count(model: Any) -> int:
    """Numbers a model stands for: tied parameters once, quantised weights by their shape."""
    whole = sum(p.numel() for p in model.parameters())
    return whole + sum(m.stored.shape.numel() for m in model.modules() if isinstance(m, QuantizedLinear))


def activation_bytes(model: Any, dtype: torch.dtype) -> int:
    """Bytes a training holds for one position of the (encoder's) text, roughly: half as much again as all linear layers
    there give.

    Measured with T5-base: 233 to 359 KB, and 286 here.
    """
    text = model.encoder if hasattr(model, "encoder") else model.base_model
    outputs = 0
    for layer in text.modules():
        if isinstance(layer, torch.nn.Linear):
            outputs += layer.out_features
        elif isinstance(layer, QuantizedLinear):
            outputs += layer.stored.shape[0]
        elif turned(layer):
            outputs += layer.nf
    return max(1, outputs * dtype.itemsize * 3 // 2)


def weight_bytes(model: Any) -> int:
    """Bytes of a model's parameters and buffers in memory, shared ones once."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum({(t.data_ptr(), t.shape): t.nbytes for t in tensors}.values())
