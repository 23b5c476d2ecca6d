"""A copy of the Hugging Face model behind a backbone, open for tuning; the backbone itself is never touched.

Letters: B rows, T input tokens, D target tokens, V vocabulary.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor

from softprompt.backbones.base import Backbone, ExampleLosses
from softprompt.backbones.engine.layers import WideLinear
from softprompt.backbones.engine.native import levels
from softprompt.backbones.load import wrap
from softprompt.batch import TokenBatch
from softprompt.errors import UsageError
from softprompt.training.weights.adafactor import FactoredAdafactor, sum_of_squares


class LiveModel:
    """A model whose weights are tuned.

    Args:
        backbone: any kind; its model is copied.
        dropout: probability everywhere the model drops out, in training mode.
        checkpointing: recompute activations in the backward pass.

    Attributes:
        module: the copied Hugging Face model.
        parameters: what is tuned, by name, tied ones once; in the model's dtype.
        masters: float32 values of the same; what the optimiser changes.
    """

    sharded = False
    loss_scale = 1.0

    def __init__(self, backbone: Backbone, *, dropout: float = 0.0, checkpointing: bool = False) -> None:
        if backbone.precision in ("int8", "int4"):
            raise UsageError(
                f"tuning the weights of {backbone.name} was asked for, which is held in {backbone.precision}: its integers "
                "take no gradients; load it in bfloat16 or float32."
            )
        self.backbone = backbone
        self.module: Any = copy.deepcopy(backbone.hf_model)
        _set_dropout(self.module, dropout)
        if backbone.device.type == "cpu" and backbone.dtype in (torch.bfloat16, torch.float16):
            _attend_in_float32(self.module)
            if backbone.dtype == torch.bfloat16 and levels.float32_is_faster():
                _multiply_in_float32(self.module)
        if checkpointing:
            _checkpoint_layers(self.module)
        self.prepare(checkpointing)
        self.parameters: dict[str, Any] = self.tuned()
        self.masters: dict[str, Tensor] = {
            name: p.detach().to(torch.float32, copy=True) for name, p in self.parameters.items()
        }
        self._sums: dict[str, Tensor] = {}

    def prepare(self, checkpointing: bool) -> None:
        """Open the copy for tuning; adapters are put in here."""
        self.module.requires_grad_(True)

    def tuned(self) -> dict[str, Any]:
        """The tuned parameters by name."""
        return dict(self.module.named_parameters())

    @contextmanager
    def evaluating(self) -> Iterator[Backbone]:
        """A backbone that computes with the tuned weights, without dropout."""
        self.module.eval()
        # A new backbone each time: one derives tensors from the weights when it is made.
        yield wrap(self.module, self.backbone.tokenizer, name=self.backbone.name, fingerprint=self.backbone.fingerprint)
        self.module.requires_grad_(True)

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the model's own dtype."""
        for name, parameter in self.parameters.items():
            parameter.copy_(self.masters[name])

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Overwrite masters and parameters; shapes are the model's own."""
        for name, master in self.masters.items():
            master.copy_(values[name])
        self.publish()

    def optimizer(self, rate: float, step_offset: int, parameter_scaling: bool) -> FactoredAdafactor:
        """Adafactor over the masters."""
        return FactoredAdafactor(self.masters, rate=rate, step_offset=step_offset, parameter_scaling=parameter_scaling)

    def norm(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """The gradient's norm over all tensors, a scalar."""
        return torch.stack([sum_of_squares(g) for g in gradients.values()]).sum().sqrt()

    def full(self) -> dict[str, Tensor]:
        """The masters, whole, in the model's shapes; on every process of a sharded tuning."""
        return dict(self.masters)

    def gathered(self, moments: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """An optimiser's moments, in their whole shapes; on every process of a sharded tuning."""
        return dict(moments)

    def own(self, moments: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This process's part of whole moments: fewer rows, otherwise the same shapes."""
        return dict(moments)

    def copies(self) -> dict[str, Tensor]:
        """The masters in the model's shapes, copied to the CPU."""
        return {name: master.to("cpu", copy=True) for name, master in self.full().items()}

    def collect_gradients(self) -> None:
        """Add the parameters' gradients to float32 sums and clear them; to be called after each micro-batch."""
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            gradient = parameter.grad.float()
            self._sums[name] = self._sums[name].add_(gradient) if name in self._sums else gradient
            parameter.grad = None

    def take_gradients(self) -> dict[str, Tensor]:
        """The float32 sums by name, in the parameters' shapes; they start again from nothing."""
        sums, self._sums = self._sums, {}
        return sums

    def losses(self, batch: TokenBatch) -> ExampleLosses:
        """Losses by row through the Hugging Face forward; gradients flow to the weights.

        Args:
            batch: padded on the right, as the backbone takes it.
        """
        logits_BDV = self._decoder_only(batch) if self.backbone.kind == "causal" else self._seq2seq(batch)
        place_D = torch.arange(batch.target_BD.shape[1], device=batch.target_BD.device)
        mask_BD = place_D < batch.target_length_B[:, None]
        log_z_BD = torch.logsumexp(logits_BDV, -1)
        chosen_BD = logits_BDV.gather(-1, batch.target_BD[..., None])[..., 0]
        zero = torch.zeros((), device=logits_BDV.device)
        return ExampleLosses(
            nll_B=torch.where(mask_BD, log_z_BD - chosen_BD, zero).sum(1),
            log_z_sq_B=torch.where(mask_BD, log_z_BD.square(), zero).sum(1),
            tokens_B=batch.target_length_B,
        )

    def _seq2seq(self, batch: TokenBatch) -> Tensor:
        start_id: int = self.backbone.start_id  # type: ignore[attr-defined]
        decoder_BD = batch.target_BD.roll(1, 1)
        decoder_BD[:, 0] = start_id
        output = self.module(
            input_ids=batch.input_BT,
            attention_mask=_mask(batch.input_BT, batch.input_length_B),
            decoder_input_ids=decoder_BD,
            decoder_attention_mask=_mask(decoder_BD, batch.target_length_B),
            use_cache=False,
        )
        return output.logits.float()  # type: ignore[no-any-return]

    def _decoder_only(self, batch: TokenBatch) -> Tensor:
        rows = [
            torch.cat([batch.input_BT[b, :t], batch.target_BD[b, :d]])
            for b, (t, d) in enumerate(zip(batch.input_length_B.tolist(), batch.target_length_B.tolist(), strict=True))
        ]
        whole_BL = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        length_B = batch.input_length_B + batch.target_length_B
        # The logits that predict target d stand one place before it. The others are not made: they are the largest tensor of all.
        depth_D = torch.arange(batch.target_BD.shape[1], device=whole_BL.device)
        place_BD = (batch.input_length_B[:, None] - 1 + depth_D).clamp(min=0, max=whole_BL.shape[1] - 1)
        kept: dict[str, Tensor] = {}
        if "logits_to_keep" in inspect.signature(self.module.forward).parameters:
            kept["logits_to_keep"], place_BD = torch.unique(place_BD, return_inverse=True)
        output = self.module(input_ids=whole_BL, attention_mask=_mask(whole_BL, length_B), use_cache=False, **kept)
        rows_B1 = torch.arange(len(rows), device=whole_BL.device)[:, None]
        return output.logits[rows_B1, place_BD].float()  # type: ignore[no-any-return]


def _attend_in_float32(module: Any) -> None:
    """Have a model that uses PyTorch's attention kernel use it in float32.

    On a CPU the kernel's backward pass takes three to four times as long in bfloat16 as in float32 (PyTorch 2.13).
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    kernel, name = "sdpa", "sdpa_in_float32"
    AttentionInterface.register(name, _float32_kernel)
    AttentionMaskInterface.register(name, AttentionMaskInterface()[kernel])
    for part in module.modules():  # the parts of a model of two halves have configurations of their own
        config: Any = getattr(part, "config", None)
        if getattr(config, "_attn_implementation", "") == kernel:
            config._attn_implementation = name


def _float32_kernel(module: Any, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **more: Any) -> Any:
    """The kernel as transformers calls it, with every floating tensor in float32 and the output in the query's dtype."""
    from transformers import AttentionInterface

    def wide(given: Any) -> Any:
        return given.float() if isinstance(given, Tensor) and given.is_floating_point() else given

    further = {name: wide(given) for name, given in more.items()}
    output, weights = AttentionInterface()["sdpa"](
        module, wide(query), wide(key), wide(value), *(wide(given) for given in rest), **further
    )
    return output.to(query.dtype), weights


def _multiply_in_float32(module: Any) -> None:
    """Have a bfloat16 model's linear layers multiply in float32; what goes in and comes out stays bfloat16."""

    def forward(layer: torch.nn.Linear, given: Tensor) -> Tensor:
        if given.dtype != torch.bfloat16 or layer.weight.dtype != torch.bfloat16:
            return torch.nn.Linear.forward(layer, given)
        return WideLinear.apply(given, layer.weight, layer.bias)  # type: ignore[no-any-return, no-untyped-call]

    for part in module.modules():
        if type(part) is torch.nn.Linear:
            part.forward = MethodType(forward, part)  # type: ignore[method-assign]


def _checkpoint_layers(module: Any) -> None:
    """Compute layers again in the backward pass, by the name this transformers has for it, and keep no attention cache."""
    enable = getattr(module, "activation_checkpointing_enable", None) or module.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    for part in module.modules():
        if getattr(getattr(part, "config", None), "use_cache", False):
            part.config.use_cache = False


def _set_dropout(module: Any, rate: float) -> None:
    """Set every dropout of a module."""
    for part in module.modules():
        for name in ("p",) if isinstance(part, torch.nn.Dropout) else ("dropout", "attention_dropout"):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, rate)


def _mask(rows: Tensor, length_B: Tensor) -> Tensor:
    return (torch.arange(rows.shape[1], device=rows.device) < length_B[:, None]).to(torch.int64)
