"""Parameters as this rank holds them. Nothing is gathered, and each step is one pass over the rank's own numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from verl.utils.device import get_device_name, get_torch_device

# Elements that are compared at once, 4 MB in float32: in the cache of a CPU, and enough for one kernel of a GPU.
_PIECE = 2**20

Step: TypeAlias = Callable[[torch.Tensor, torch.Tensor], object]


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's shard, without a copy."""
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach()


def reshard(module: nn.Module) -> None:
    """Make a module's parameters shards again, so that a write to them counts."""
    # With reshard_after_forward=False parameters stay unsharded after a forward pass, and a write to them is lost.
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def device() -> torch.device:
    """Where shards are moved; what verl is still copying to the host is there after this."""
    if get_device_name() != "cpu":
        # verl offloads without waiting for the copies (`offload_fsdp2_model_to_cpu`): the host may hold half of them.
        get_torch_device().synchronize()
    return torch.device(get_device_name())


def checked_step(step: Step, target: torch.Tensor, source: torch.Tensor) -> None:
    """Call a teacher's step. Raises ValueError if it changed `source` or returned another tensor than `target`."""
    before = source._version
    result = step(target, source)
    if source._version != before:
        raise ValueError("a teacher's step changes the teacher in place, and this one changed the actor")
    if result is not None and result is not target:
        raise ValueError("a teacher's step changes the teacher in place and returns nothing; is an underscore missing?")


def squares(target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Sums of squares of the difference and of the source, float64; in pieces, without a copy of an embedding."""
    total = torch.zeros(2, dtype=torch.float64, device=target.device)
    for ours, theirs in zip(target.reshape(-1).split(_PIECE), source.reshape(-1).split(_PIECE), strict=True):
        norms = torch.stack([torch.linalg.vector_norm(ours - theirs), torch.linalg.vector_norm(theirs)])
        total.addcmul_(norms.double(), norms.double())
    return total


def relative_distance(sums: torch.Tensor, group: object = None) -> float:
    """|| teacher - actor || / || actor || of all ranks, from the `squares` of each. Collective."""
    if torch.distributed.is_initialized() and torch.distributed.get_world_size(group) > 1:
        torch.distributed.all_reduce(sums, group=group)
    return float((sums[0] / sums[1].clamp(min=1e-30)).sqrt())


def rank_file(name: str) -> str:
    """The name of this rank's file in a checkpoint, as verl names its own."""
    rank, world = 0, 1
    if torch.distributed.is_initialized():
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return f"{name}_world_size_{world}_rank_{rank}.pt"
