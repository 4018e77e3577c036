"""What is done to the teacher's weights once per training step: they follow the actor's, shard by shard.

Each rank moves its own shards; nothing is gathered. A shard that rests in host memory (the teacher's between its
passes, the actor's with `param_offload`) comes to the device for it: on the host, under Ray, one thread would do it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from srpo_verl.core import join, split
from srpo_verl.training.worker.lora_weights import Source, sources
from srpo_verl.training.worker.shards import (
    Step,
    checked_step,
    device,
    local,
    rank_file,
    relative_distance,
    reshard,
    squares,
)


class TeacherWeights:
    """A teacher's parameters and, where they are bfloat16, the bits that these lack of float32 (`split_float`).

    A weight is then 2 bytes, which the forward pass uses, and one byte in host memory, which only `follow` looks at.
    """

    def __init__(self, teacher: nn.Module):
        self.module = teacher
        self.rest: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def follow(self, actor: nn.Module, step: Step | None, group: Any = None) -> float:
        """Call `step(target, source)` on each pair of shards, to change the teacher's in place. Collective.

        Both are float32 on one device; the actor's adapter is merged. Without a step only the distance is measured.

        Returns:
            || teacher - actor || / || actor || over all parameters of all ranks, after the step.

        Raises:
            RuntimeError: the two modules do not have the same parameters.
            ValueError: the actor's shard was changed, or another tensor than the teacher's was returned.
        """
        for module in (self.module, actor):
            reshard(module)
        where = device()
        sums = torch.zeros(2, dtype=torch.float64, device=where)
        for name, stored, source_of in _pairs(self.module, actor):
            target = self._whole(name, stored, where)
            source = source_of(where).to(target.dtype)
            if step is not None:
                checked_step(step, target, source)
                self._store(name, stored, target)
            sums += squares(target, source)
        return relative_distance(sums, group)

    def save(self, folder: str) -> None:
        """The bits that the checkpoint of the module lacks, one file per rank."""
        if self._is_narrow():
            torch.save(self.rest, _rest_file(folder))

    def load(self, folder: str) -> None:
        """What `save` wrote. Raises FileNotFoundError if this teacher needs it and it is not there."""
        if self._is_narrow():
            self.rest = torch.load(_rest_file(folder), map_location="cpu", weights_only=True)

    def _is_narrow(self) -> bool:
        return any(parameter.dtype == torch.bfloat16 for parameter in self.module.parameters())

    def _whole(self, name: str, stored: torch.Tensor, device: torch.device) -> torch.Tensor:
        if stored.dtype != torch.bfloat16:
            return stored.to(device)
        rest = self.rest.get(name)
        return stored.to(device).float() if rest is None else join(stored.to(device), rest.to(device))

    def _store(self, name: str, stored: torch.Tensor, target: torch.Tensor) -> None:
        if stored.dtype == torch.bfloat16:
            nearest, rest = split(target)
            stored.copy_(nearest)
            self.rest[name] = rest.cpu()
        elif target.data_ptr() != stored.data_ptr():
            stored.copy_(target)


def _pairs(teacher: nn.Module, actor: nn.Module) -> Iterator[tuple[str, torch.Tensor, Source]]:
    ours, theirs = dict(teacher.named_parameters()), sources(actor)
    if ours.keys() != theirs.keys():
        raise RuntimeError(f"teacher and actor differ in parameters: {sorted(ours.keys() ^ theirs.keys())[:5]}")
    for name, target in ours.items():
        yield name, local(target), theirs[name]


def _rest_file(folder: str) -> str:
    return os.path.join(folder, rank_file("rest"))
