"""The teacher's weights: a third engine beside actor and reference, and what moves it once per training step.

Each rank moves its own shards; nothing is gathered. The teacher is kept in float32: in bfloat16 an EMA step of 0.05 is
rounded away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from verl.trainer.config import CheckpointConfig
from verl.workers.config import TrainingWorkerConfig
from verl.workers.engine_workers import TrainingWorker

from srpo_verl.verl_names.worker import set_fields

# Elements that are compared at once, 4 MB in float32: in the cache of a CPU, and enough for one kernel of a GPU.
_PIECE = 2**20


def build_teacher(actor: TrainingWorker, path: str | None = None) -> TrainingWorker:
    """A forward-only engine with the actor's model on the actor's mesh.

    Args:
        path: a Hugging Face folder or name whose weights it starts from; None: the actor's current ones.
    """
    engine_config = deepcopy(actor.config.engine_config)
    set_fields(engine_config, forward_only=True, model_dtype="fp32", use_dynamic_bsz=True)
    teacher = TrainingWorker(
        TrainingWorkerConfig(
            model_type=actor.config.model_type,
            model_config=_model_config(actor, path),
            engine_config=engine_config,
            optimizer_config=None,
            checkpoint_config=CheckpointConfig(save_contents=["model"], load_contents=["model"]),
            profiler_config=actor.config.profiler_config,
        )
    )
    teacher.reset()
    for parameter in teacher.engine.module.parameters():
        parameter.requires_grad_(False)
    if path is None:
        move(teacher.engine.module, actor.engine.module, lambda target, source: target.copy_(source))
    return teacher


def _model_config(actor: TrainingWorker, path: str | None) -> Any:
    if path is None:
        return deepcopy(actor.config.model_config)
    config = replace(actor.config.model_config, path=path, local_path=None, hf_config_path=None)
    theirs, ours = actor.config.model_config.hf_config, config.hf_config
    for key in ("architectures", "vocab_size", "hidden_size", "num_hidden_layers"):
        its, actors = getattr(ours, key, None), getattr(theirs, key, None)
        if its != actors:
            raise ValueError(
                f"srpo.teacher.path={path} has {key}={its}, the actor {actors}: it must be of one architecture"
            )
    return config


@torch.no_grad()
def move(teacher: nn.Module, actor: nn.Module, step: Callable[[torch.Tensor, torch.Tensor], object]) -> None:
    """Call `step(target, source)` on each pair of shards, to change the teacher's in place.

    Raises:
        RuntimeError: the two modules do not have the same parameters.
        ValueError: the actor's shard was changed, or another tensor than the teacher's was returned.
    """
    _reshard(teacher)
    _reshard(actor)
    for target, source in _pairs(teacher, actor):
        source = source.to(device=target.device, dtype=target.dtype)
        before = source._version
        result = step(target, source)
        if source._version != before and source.data_ptr() != target.data_ptr():
            raise ValueError("a teacher's step changes the teacher in place, and this one changed the actor")
        if result is not None and result is not target:
            raise ValueError(
                "a teacher's step changes the teacher in place and returns nothing; is an underscore missing?"
            )


@torch.no_grad()
def distance(teacher: nn.Module, actor: nn.Module, group: torch.distributed.ProcessGroup | None = None) -> float:
    """|| teacher - actor || / || actor || over all parameters of all ranks. Collective: call it on every rank."""
    _reshard(teacher)
    _reshard(actor)
    squares = torch.zeros(2, dtype=torch.float64)
    for target, source in _pairs(teacher, actor):
        # In pieces: a difference of all elements of an embedding would be a second copy of it.
        for ours, theirs in zip(target.reshape(-1).split(_PIECE), source.reshape(-1).split(_PIECE), strict=True):
            theirs = theirs.to(device=ours.device, dtype=ours.dtype)
            norms = torch.stack([torch.linalg.vector_norm(ours - theirs), torch.linalg.vector_norm(theirs)])
            squares = squares.to(ours.device).addcmul_(norms.double(), norms.double())
    if torch.distributed.is_initialized() and torch.distributed.get_world_size(group) > 1:
        torch.distributed.all_reduce(squares, group=group)
    return float((squares[0] / squares[1].clamp(min=1e-30)).sqrt())


def _pairs(teacher: nn.Module, actor: nn.Module) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    ours, theirs = dict(teacher.named_parameters()), dict(actor.named_parameters())
    if ours.keys() != theirs.keys():
        raise RuntimeError(f"teacher and actor differ in parameters: {sorted(ours.keys() ^ theirs.keys())[:5]}")
    for name, target in ours.items():
        yield _local(target), _local(theirs[name])


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach()


def _reshard(module: nn.Module) -> None:
    # With reshard_after_forward=False parameters stay unsharded after a forward pass, and a write to them is lost.
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()
