"""Gradient norm of each branch by itself: two more backward passes, so it runs every `srpo.grad_norm_freq` steps."""

from __future__ import annotations

import math

import torch
from tensordict import TensorDict
from torch.distributed.tensor import DTensor
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import TrainingWorker

from srpo_verl.training.worker.objective import SRPOObjective
from srpo_verl.verl_names.worker import train_options


def branch_gradient_norms(actor: TrainingWorker, objective: SRPOObjective, data: TensorDict) -> dict[str, float]:
    """L2 norms, before clipping, of the whole batch's gradient with one branch at a time. Collective.

    No weight, optimiser state or gradient is left changed.
    """
    engine, norms = actor.engine, {}
    with engine.train_mode(disable_auto_offload=False):
        for branch in ("grpo", "sdpo"):
            batch = data.copy()
            tu.assign_non_tensor(batch, **train_options(actor))
            engine.optimizer_zero_grad()
            objective.branch = branch
            try:
                engine.forward_backward_batch(batch, loss_function=objective, forward_only=False)
            finally:
                objective.branch = None
            # With float16 verl scales the loss, and divides the gradient by it in the optimiser's step.
            scale = engine.scaler.get_scale() if getattr(engine, "scaler", None) else 1.0
            norms[f"srpo/grad_norm/{branch}"] = _gradient_norm(engine.module) / scale
            engine.optimizer_zero_grad()
    return norms


def _gradient_norm(module: torch.nn.Module) -> float:
    total = 0.0
    for parameter in module.parameters():
        if parameter.grad is not None:
            norm = torch.linalg.vector_norm(parameter.grad.detach().float())
            total += float(norm.full_tensor() if isinstance(norm, DTensor) else norm) ** 2
    return math.sqrt(total)
