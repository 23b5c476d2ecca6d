"""LoRA through PEFT, as a reference row beside prompts and model tuning (Hu et al. 2022).

PEFT is imported where it is used. The adapters are tuned with model tuning's loop and evaluated by adding them to the
weights of a copy of its model; the backbone is not touched.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from softprompt.backbones.base import Backbone
from softprompt.backbones.load import wrap
from softprompt.errors import SoftpromptError, UsageError
from softprompt.fields import Count, Settings
from softprompt.training.loop import Observer
from softprompt.training.runs import Run
from softprompt.training.settings import TuneSettings
from softprompt.training.weights.live import LiveModel
from softprompt.training.weights.tune import tuned_with
from softprompt.training.weights.tuned import TunedModel

ADAPTER = "default"


@dataclass(frozen=True, kw_only=True)
class LoraSettings(Settings):
    """Shape of the adapters.

    Attributes:
        rank: r, at least 1.
        alpha: the update is scaled by alpha / r.
        targets: names of the linear layers that get one; None for PEFT's choice for the architecture (queries and values).
        seed_init: added to the run's seed for A's random start; B starts at zero.
    """

    rank: Count = 8
    alpha: Count = 16
    targets: Sequence[str] | None = None
    seed_init: int = 0


class LoraModel(LiveModel):
    """A model whose adapters alone are tuned.

    Args:
        backbone: its model is copied.
        lora: shape of the adapters.
        seed: of A's random start.
        dropout: in the frozen layers.
        checkpointing: recompute activations in the backward pass.

    Raises:
        SoftpromptError: PEFT is not installed.
        UsageError: the target layers are not there.
    """

    def __init__(
        self, backbone: Backbone, lora: LoraSettings, seed: int, *, dropout: float = 0.0, checkpointing: bool = False
    ) -> None:
        self.lora, self.seed = lora, seed
        super().__init__(backbone, dropout=dropout, checkpointing=checkpointing)

    def prepare(self, checkpointing: bool) -> None:
        try:
            import peft
        except ImportError as error:
            raise SoftpromptError(
                "LoRA needs peft, which is not installed: run pip install 'softprompt[interop]'."
            ) from error
        names = list(self.lora.targets) if self.lora.targets is not None else _default_targets(self.backbone)
        layers = [m for n, m in self.module.named_modules() if n.rsplit(".", 1)[-1] in names]
        config = peft.LoraConfig(
            r=self.lora.rank,
            lora_alpha=self.lora.alpha,
            target_modules=names,
            lora_dropout=0.0,
            fan_in_fan_out=any(type(m).__name__ == "Conv1D" for m in layers),  # GPT-2 stores its weights transposed
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + self.lora.seed_init)
            try:
                with warnings.catch_warnings():  # PEFT asks transformers by a name that is going away
                    warnings.simplefilter("ignore", FutureWarning)
                    peft.get_peft_model(self.module, config, adapter_name=ADAPTER)
            except ValueError as error:
                raise UsageError(
                    f"LoRA cannot be put into {self.backbone.name}: {str(error)[:200]}; name its targets."
                ) from error
        if checkpointing:
            self.module.enable_input_require_grads()

    def tuned(self) -> dict[str, Any]:
        return {name: p for name, p in self.module.named_parameters() if f".{ADAPTER}." in name and "lora_" in name}

    @contextmanager
    def evaluating(self) -> Iterator[Backbone]:
        """A backbone whose weights have the adapters' products added."""
        self.module.eval()
        plain = copy.deepcopy(self.backbone.hf_model)
        with torch.no_grad():
            for name, layer in self.module.named_modules():
                if hasattr(layer, "get_delta_weight") and hasattr(layer, "base_layer"):
                    weight = plain.get_submodule(name).weight
                    weight.add_(layer.get_delta_weight(ADAPTER).to(weight.dtype))
        yield wrap(plain, self.backbone.tokenizer, name=self.backbone.name, fingerprint=self.backbone.fingerprint)


def tune_lora(
    backbone: Backbone,
    run: Run,
    settings: TuneSettings,
    lora: LoraSettings | None = None,
    folder: Path | None = None,
    *,
    resume: bool = False,
    observer: Observer | None = None,
) -> TunedModel:
    """Tune LoRA adapters on one run's data; arguments and result as those of ``tune_model``.

    Raises:
        UsageError: ``settings.sharded``, which only model tuning has; or as ``tune_model``.
    """
    if settings.sharded:
        raise UsageError("LoRA was asked for in shards, which only model tuning has: set sharded to false.")
    lora = lora or LoraSettings()
    return tuned_with(
        lambda: LoraModel(backbone, lora, run.seed, dropout=settings.dropout, checkpointing=settings.checkpointing),
        backbone, run, settings, folder, method="lora", resume=resume, observer=observer,
        extra_identity={"lora": asdict(lora)},
    )  # fmt: skip


_QUERY_VALUE = (("q", "v"), ("query", "value"), ("q_proj", "v_proj"), ("c_attn",), ("query_key_value",))


def _default_targets(backbone: Backbone) -> list[str]:
    """Queries and values, by the names the architecture gives them."""
    found = {name.rsplit(".", 1)[-1] for name, _ in backbone.hf_model.named_modules()}
    for names in _QUERY_VALUE:
        if found.issuperset(names):
            return list(names)
    raise UsageError(f"LoRA knows no query and value layers in {backbone.name}; name its targets.")
