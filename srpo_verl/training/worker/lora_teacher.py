"""Teachers that are the actor's own model: without its adapter, or with another adapter in place of its own.

Neither keeps a second set of weights. The other adapter is a copy of A and B, one shard of each per rank, which takes
the place of the actor's own for the teacher's pass. It follows the actor factor by factor, and the EMA of two factors
is not the factors of the EMA: docs/configuration.md says how far apart they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from tensordict import TensorDict
from torch import nn
from verl.workers.engine_workers import TrainingWorker

from srpo_verl.training.worker.lora_weights import Factors, factors, sources
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


class AdapterTeacher:
    """Answers like a `Teacher`, out of the actor's engine.

    Args:
        copied: the teacher has an adapter of its own, which begins as the actor's; else it has none.

    Raises:
        ValueError: the actor trains more than the A and B of linear layers.
    """

    def __init__(self, actor: TrainingWorker, *, copied: bool):
        self.actor = actor
        self.weights = AdapterWeights(actor.engine.module, copied=copied)

    @property
    def loss_fn(self) -> Any:
        return self.actor.loss_fn

    @loss_fn.setter
    def loss_fn(self, function: Any) -> None:
        self.actor.loss_fn = function

    def get_dispatch_collect(self) -> dict[str, Any]:
        return self.actor.get_dispatch_collect()

    def infer_batch(self, batch: TensorDict) -> TensorDict:
        with self.weights.teacher_in_place():
            return self.actor.infer_batch(batch)

    def student_pass(self, actor: TrainingWorker) -> AbstractContextManager[None]:
        """For a pass of the student in the middle of the teacher's: the engine is in its mode already."""
        return self.weights.student_in_place()

    def save_checkpoint(self, local_path: str, hdfs_path: str | None, global_step: int, max_ckpt_to_keep: None) -> None:
        os.makedirs(local_path, exist_ok=True)

    def load_checkpoint(self, local_path: str, hdfs_path: str | None, del_local_after_load: bool) -> None:
        """The weights are all there is to load."""


class AdapterWeights:
    """The teacher's shards of A and B, float32 on the device; `adapter` is None for a teacher without."""

    def __init__(self, module: nn.Module, *, copied: bool):
        self.module = module
        self.names = [name for low in factors(module).values() for name in low.names]
        self.adapter: dict[str, torch.Tensor] | None = None
        if copied:
            self.adapter = {name: value.float() for name, value in self._read().items()}

    @torch.no_grad()
    def follow(self, actor: nn.Module, step: Step | None, group: Any = None) -> float:
        """As `TeacherWeights.follow`, each factor by itself; the distance is that of the merged weights."""
        assert actor is self.module
        reshard(actor)
        where = device()
        if step is not None:
            assert self.adapter is not None
            for name, parameter in self._parameters():
                checked_step(step, self.adapter[name], local(parameter).to(where).float())
        lows = factors(actor)
        sums = torch.zeros(2, dtype=torch.float64, device=where)
        for name, source_of in sources(actor).items():
            student = source_of(where).float()
            low = lows.get(name)
            teacher = student if low is None else student + self._difference(low, where)
            sums += squares(teacher, student)
        return relative_distance(sums, group)

    def _difference(self, low: Factors, where: torch.device) -> torch.Tensor:
        """This rank's rows of s B' A' - s B A, the teacher's product and the actor's."""
        a, b = low.shards(where)
        if self.adapter is None:
            return -(b @ a)
        own_a, own_b = low.shards(where, self.adapter)
        return torch.addmm(-(b @ a), own_b, own_a)

    def save(self, folder: str) -> None:
        """One file per rank."""
        if self.adapter is not None:
            torch.save({name: value.cpu() for name, value in self.adapter.items()}, self._file(folder))

    def load(self, folder: str) -> None:
        """What `save` wrote.

        Raises:
            FileNotFoundError: the checkpoint holds no adapter of a teacher.
            ValueError: it is of another shape.
        """
        if self.adapter is None:
            return
        file = self._file(folder)
        if not os.path.isfile(file):
            raise FileNotFoundError(
                f"{file} is missing: the checkpoint was written with another srpo.teacher.lora_ema than adapter, or by "
                "another number of ranks. Resume with what it was written with"
            )
        saved = torch.load(file, map_location="cpu", weights_only=True)
        shapes = {name: value.shape for name, value in self.adapter.items()}
        if shapes != {name: value.shape for name, value in saved.items()}:
            raise ValueError(f"{file} holds an adapter of another shape: is lora_rank or target_modules another one?")
        for name, value in self.adapter.items():
            value.copy_(saved[name])

    @contextmanager
    def teacher_in_place(self) -> Iterator[None]:
        """The module is the teacher, and the student again at the end, whatever happens in between."""
        if self.adapter is None:
            with _adapter_switched(self.module, off=True):
                yield
            return
        self.student = self._read()
        try:
            self._write(self.adapter)
            yield
        finally:
            self._write(self.student)
            del self.student

    @contextmanager
    def student_in_place(self) -> Iterator[None]:
        """The module is the student, within `teacher_in_place`."""
        if self.adapter is None:
            with _adapter_switched(self.module, off=False):
                yield
            return
        try:
            self._write(self.student)
            yield
        finally:
            self._write(self.adapter)

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name in self.names:
            yield name, self.module.get_parameter(name)

    def _read(self) -> dict[str, torch.Tensor]:
        reshard(self.module)
        where = device()
        return {name: local(parameter).to(where, copy=True) for name, parameter in self._parameters()}

    def _write(self, values: dict[str, torch.Tensor]) -> None:
        reshard(self.module)
        device()
        for name, parameter in self._parameters():
            local(parameter).copy_(values[name])

    def _file(self, folder: str) -> str:
        return os.path.join(folder, rank_file("adapter"))


@contextmanager
def _adapter_switched(module: nn.Module, *, off: bool) -> Iterator[None]:
    """Without peft's `disable_adapter`, which takes the gradient from A and B meanwhile.

    FSDP2 asks once, at the first pass, which parameters have a gradient: were that the teacher's, nothing would train.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, BaseTunerLayer)]
    before = [layer._disable_adapters for layer in layers]
    for layer in layers:
        layer._disable_adapters = off
    try:
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer._disable_adapters = was
