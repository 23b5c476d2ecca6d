"""What a CUDA device is found to run: compiled formulas, and attention over packed rows. Each is tried before it is used.

Letters: S packed positions, A heads, K head width.
"""

# mypy: disable-error-code="no-untyped-call, no-any-return"

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from softprompt.backbones.engine.formulas import rms_forward
from softprompt.backbones.engine.native.levels import in_force
from softprompt.backbones.engine.packing import Layout

_COMPILER = "inductor"


def formula(function: Callable[..., Any], x: Tensor) -> Callable[..., Any]:
    """A formula as it is, or its compiled form where x (any shape) is on a CUDA device that runs it."""
    if x.device.type != "cuda" or not compiles(x.device):
        return function
    return compiled(function)


@lru_cache(maxsize=16)
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A formula's compiled form, made once; it serves any number of rows and positions."""
    from torch._dynamo import maybe_mark_dynamic

    made = torch.compile(function, backend=_COMPILER)

    def call(*arguments: Any) -> Any:
        if not torch.is_grad_enabled():  # inside an operation with a gradient of its own
            arguments = tuple(each.detach() if isinstance(each, Tensor) else each for each in arguments)
        for each in arguments:  # rows and positions differ from batch to batch, widths do not
            if isinstance(each, Tensor) and (each.dim() > 1 or each.dtype == torch.int64):
                maybe_mark_dynamic(each, 0)
        return made(*arguments)

    return call


@lru_cache(maxsize=8)
def compiles(device: torch.device) -> bool:
    """Whether compiled formulas run on a device and give what plain ones give: a small one is tried, once.

    ``SOFTPROMPT_KERNELS=torch`` says no.
    """
    if in_force().name == "torch":
        return False
    draw = torch.Generator().manual_seed(0)
    x, o = (torch.randn(9, 32, generator=draw).to(device, torch.bfloat16) for _ in range(2))
    row_S = torch.arange(9, device=device) // 3
    given = (x, o, torch.ones(3, 32, device=device), row_S, torch.ones(32, device=device, dtype=x.dtype), 1e-6)
    try:
        found = compiled(rms_forward)(*given)
    except Exception:  # whatever a compiler or a driver raises, the plain formulas go on
        return False
    pairs = zip(found, rms_forward(*given), strict=True)
    return all(torch.allclose(a.float(), b.float(), rtol=0.02, atol=0.02) for a, b in pairs)


def attend_packed(q_SAK: Tensor, k_SAK: Tensor, v_SAK: Tensor, bounds: Tensor, longest: int) -> Tensor:
    """Attention within packed rows by the flash kernel, scaled by K^-0.5: [S, A, K]."""
    from torch.nn.attention.varlen import varlen_attn

    out: Any = varlen_attn(q_SAK, k_SAK, v_SAK, bounds, bounds, longest, longest)
    return out


@lru_cache(maxsize=32)
def packed_attention(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Whether a device has an attention kernel for packed rows that gives what the padded one gives.

    Asked once: a small example is computed both ways, forward and backward. ``SOFTPROMPT_KERNELS=torch`` says no.
    """
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16) or width % 8 or width > 256:
        return False
    if in_force().name == "torch":
        return False
    layout = Layout((5, 16, 9), device)
    draw = torch.Generator().manual_seed(0)
    qkv = torch.randn(layout.total, 3, 2, width, generator=draw).to(device, dtype).requires_grad_()
    try:
        with torch.enable_grad():
            found = []
            for packed in (True, False):
                q, k, v = qkv.unbind(1)
                if packed:
                    out = attend_packed(q, k, v, layout.bounds32, layout.longest)
                else:
                    q, k, v = (layout.pad(t).transpose(1, 2) for t in (q, k, v))
                    mask = layout.key_mask(dtype)
                    out = layout.unpad(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2))
                (gradient,) = torch.autograd.grad(out.float().square().sum(), qkv)
                found.append((out.detach().float(), gradient.float()))
    except (ImportError, RuntimeError, TypeError, NotImplementedError):
        return False
    return all(torch.allclose(a, b, rtol=0.05, atol=0.05) for a, b in zip(*found, strict=True))
