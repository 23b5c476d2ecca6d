"""Model tuning with weights, gradients and moments sharded over processes (PyTorch's FSDP2).

Each process holds its rows of every tensor in float32 and gathers a block's weights, in the backbone's dtype, while the
block computes. For evaluation every process gathers the whole model once, in the backbone's dtype. Start with torchrun.

Letters: as in ``live_model``; tensors are sharded along their first axis as ``torch.chunk`` cuts it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from softprompt import distributed as parallel
from softprompt.backbones.base import Backbone
from softprompt.backbones.load import wrap
from softprompt.backbones.sharding import blocks
from softprompt.errors import UsageError
from softprompt.training.weights.adafactor import FactoredAdafactor, sum_of_squares
from softprompt.training.weights.live import LiveModel


class ShardedModel(LiveModel):
    """A model tuned in shards; ``masters`` are this process's rows, in place.

    Args:
        backbone: its model is copied and sharded.
        dropout: as of `LiveModel`.
        checkpointing: as of `LiveModel`.

    Raises:
        UsageError: there is no process group.
    """

    sharded = True

    def __init__(self, backbone: Backbone, *, dropout: float = 0.0, checkpointing: bool = False) -> None:
        if not torch.distributed.is_initialized():
            raise UsageError("sharded model tuning was asked for in a single process; start it with torchrun.")
        super().__init__(backbone, dropout=dropout, checkpointing=checkpointing)
        self.loss_scale = float(parallel.world()[1])  # FSDP2 averages gradients over processes; a step sums them
        self.masters = {name: p.to_local().detach() for name, p in self.parameters.items()}

    def prepare(self, checkpointing: bool) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        device = self.backbone.device
        mesh = init_device_mesh(device.type, (parallel.world()[1],))
        policy = MixedPrecisionPolicy(param_dtype=self.backbone.dtype, reduce_dtype=torch.float32)
        self.module.float().requires_grad_(True)
        for block in blocks(self.module):
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(self.module, mesh=mesh, mp_policy=policy)

    def publish(self) -> None:
        """Masters are the parameters' own rows."""

    def collect_gradients(self) -> None:
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            gradient = parameter.grad.to_local().float()
            self._sums[name] = self._sums[name].add_(gradient) if name in self._sums else gradient.clone()
            parameter.grad = None

    def norm(self, gradients: Mapping[str, Tensor]) -> Tensor:
        total = torch.stack([sum_of_squares(g) for g in gradients.values()]).sum()
        parallel.sum_over_processes([total])
        return total.sqrt()

    def optimizer(self, rate: float, step_offset: int, parameter_scaling: bool) -> FactoredAdafactor:
        shapes = {name: tuple(p.shape) for name, p in self.parameters.items()}
        return ShardedAdafactor(
            self.masters, shapes, rate=rate, step_offset=step_offset, parameter_scaling=parameter_scaling
        )

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        for name, master in self.masters.items():
            master.copy_(_own_rows(values[name]))

    def full(self) -> dict[str, Tensor]:
        """Whole float32 weights in the model's shapes on the CPU, on every process."""
        return {name: p.full_tensor().detach().cpu() for name, p in self.parameters.items()}

    def gathered(self, moments: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {n: m.cpu() if self._replicated(n) else torch.cat(parallel.gather(m.cpu())) for n, m in moments.items()}

    def own(self, moments: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {n: m if self._replicated(n) else _own_rows(m) for n, m in moments.items()}

    def _replicated(self, moment: str) -> bool:
        kind, _, name = moment.partition(".")
        return kind == "column" and self.parameters[name].dim() == 2

    @contextmanager
    def evaluating(self) -> Iterator[Backbone]:
        plain = copy.deepcopy(self.backbone.hf_model)
        with torch.no_grad():
            for name, parameter in plain.named_parameters():
                parameter.copy_(self.parameters[name].full_tensor())
        yield wrap(plain, self.backbone.tokenizer, name=self.backbone.name, fingerprint=self.backbone.fingerprint)


class ShardedAdafactor(FactoredAdafactor):
    """Adafactor whose statistics are those of the whole tensors: sums over the first axis run over processes.

    Args:
        parameters: this process's rows by name.
        shapes: of the whole tensors.
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], **settings: Any
    ) -> None:
        self.shapes = dict(shapes)
        super().__init__(parameters, **settings)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def mean_square(self, name: str, tensor: Tensor) -> Tensor:
        total = sum_of_squares(tensor)
        parallel.sum_over_processes([total])
        return total / _numbers(self.shapes[name])

    def mean_rows(self, name: str, tensor: Tensor, axis: int) -> Tensor:
        if len(self.shapes[name]) > 2:
            return tensor.mean(axis)
        total = tensor.sum(axis)
        parallel.sum_over_processes([total])
        return total / self.shapes[name][0]


def _own_rows(tensor: Tensor) -> Tensor:
    rank, processes = parallel.world()
    parts = torch.chunk(tensor, processes)
    return parts[rank] if rank < len(parts) else tensor[:0]


def _numbers(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
