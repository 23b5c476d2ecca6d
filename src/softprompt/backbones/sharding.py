"""A frozen backbone whose layers lie in shards on the processes of ``torchrun`` (PyTorch's FSDP2).

Each process holds its rows of every layer's weights and gathers a layer while it computes, forward and backward. Tables,
the last norms and the output head are whole on every process. Prompts are no part of it: they are plain tensors, equal
on all processes, and training sums their gradients as in any data-parallel training.

Gathering takes every process, so all of them must run the same number of forward passes: ``Backbone.sharded`` tells
training, evaluation and generation to keep in step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from softprompt.backbones.base import Backbone
from softprompt.errors import UsageError

Value = TypeVar("Value")


def mapped(value: Value, change: Callable[[Tensor], Tensor]) -> Value:
    """A value of nested dataclasses and lists with every tensor (any shape) changed, in the order of the fields."""
    if isinstance(value, Tensor):
        return change(value)  # type: ignore[return-value]
    if isinstance(value, list):
        return [mapped(part, change) for part in value]  # type: ignore[return-value]
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: mapped(getattr(value, f.name), change) for f in fields(value)})
    return value


class ShardedLayer(torch.nn.Module):
    """A layer of frozen weights whose tensors FSDP2 shards.

    Args:
        layer: a dataclass of tensors, as ``layers.Layer``.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        tensors: list[Tensor] = []

        def noted(tensor: Tensor) -> Tensor:
            tensors.append(tensor)
            return tensor

        mapped(layer, noted)
        self._pattern = mapped(layer, lambda t: t.new_empty(0))
        self.names = [f"tensor_{i}" for i in range(len(tensors))]
        for name, tensor in zip(self.names, tensors, strict=True):
            self.register_parameter(name, torch.nn.Parameter(tensor.contiguous(), requires_grad=False))

    def forward(self, run: Callable[..., Any], again: bool, *inputs: Any) -> Any:
        """``run(layer, *inputs)`` with the gathered layer; computed again in the backward pass where asked for."""
        whole = iter([getattr(self, name) for name in self.names])
        step = partial(run, mapped(self._pattern, lambda _: next(whole)))
        # Inside the module: FSDP2 gathers once for the second forward pass and the backward pass together.
        return checkpoint(step, *inputs, use_reentrant=False) if again else step(*inputs)


class Root(torch.nn.Module):
    """The layers of a backbone as one module, through which every forward pass goes.

    Args:
        layers: sharded ones, in the order in which they run.
    """

    def __init__(self, layers: list[ShardedLayer]) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, run: Callable[..., Any], *inputs: Any) -> Any:
        """``run(*inputs)``."""
        return run(*inputs)


def through(layer: Any, run: Callable[..., Any], *inputs: Any, again: bool = False) -> Any:
    """``run(layer, *inputs)``, gathered first where the layer is sharded, computed again in the backward pass if asked."""
    if isinstance(layer, ShardedLayer):
        return layer(run, again, *inputs)
    return checkpoint(partial(run, layer), *inputs, use_reentrant=False) if again else run(layer, *inputs)


def shard_layers(backbone: Any, model: Any, names: Sequence[str], device: torch.device) -> Root:
    """Shard the layers of a backbone that runs plain values, in place; the rest goes to the device.

    Args:
        backbone: its layers are lists of dataclasses.
        model: the Hugging Face module that shares their memory.
        names: the attributes that hold them, in the order in which they run.
        device: where it computes.
    """
    groups = {name: [ShardedLayer(layer) for layer in getattr(backbone, name)] for name in names}
    layers = [layer for group in groups.values() for layer in group]
    # The Hugging Face module shares the layers' memory: let it go there too.
    held = [(p.data_ptr(), p.data_ptr() + p.nbytes) for layer in layers for p in layer.parameters()]
    for parameter in model.parameters():
        if any(begin <= parameter.data_ptr() < end for begin, end in held):
            parameter.data = parameter.data.new_empty(0)
    for name, group in groups.items():
        setattr(backbone, name, group)
    root = Root(layers)
    for layer in layers:
        fully_shard(layer, device)
    fully_shard(root, device)
    moved: dict[tuple[int, torch.Size], Tensor] = {}

    def move(tensor: Tensor) -> Tensor:
        return moved.setdefault((tensor.data_ptr(), tensor.shape), tensor.to(device))

    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = move(tensor.data)
    for name, value in list(vars(backbone).items()):
        if isinstance(value, Tensor) or is_dataclass(value):
            setattr(backbone, name, mapped(value, move))
    return root


def shard(backbone: Backbone, device: torch.device) -> None:
    """Shard a backbone's layers over the processes, in place; what is not sharded goes to the device.

    Args:
        backbone: in the memory of every process, on the CPU where the device cannot hold it whole.
        device: where it computes.

    Raises:
        UsageError: there is no process group, or its weights are quantised.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        raise UsageError("a sharded backbone was asked for in a single process: start it with torchrun.")
    if backbone.precision in ("int8", "int4"):
        raise UsageError(
            f"a sharded backbone was asked for in {backbone.precision}: weights are either sharded or quantised; leave "
            "--sharded or the dtype out."
        )
    backbone.shard(device)


def local(parameter: Tensor) -> Tensor:
    """This process's rows of a sharded parameter, [rows here, ...]."""
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


def no_whole_model(name: str) -> UsageError:
    """What is raised where a sharded backbone's Hugging Face module is asked for."""
    return UsageError(
        f"the Hugging Face module of {name} was asked for, whose layers lie in shards on several processes: load it without "
        "--sharded."
    )


def fully_shard(module: torch.nn.Module, device: torch.device, ignored: set[torch.nn.Parameter] | None = None) -> None:
    """FSDP2 over all processes, with the module's weights in their own dtype."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard as shard_module

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    shard_module(module, mesh=mesh, ignored_params=ignored)


def blocks(module: Any) -> list[Any]:
    """The repeated layers of a Hugging Face model: members of module lists that lie in no other list."""
    lists = [part for part in module.modules() if isinstance(part, torch.nn.ModuleList)]
    members = [member for part in lists for member in part]
    inner = {id(m) for member in members for m in member.modules() if m is not member}
    return [member for member in members if id(member) not in inner]
