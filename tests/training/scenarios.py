"""What the ranks of `worker_process.run_ranks` do; module-level functions, so that a spawned process finds them."""

from __future__ import annotations

from typing import Any

import torch
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import response_from_nested

from srpo_verl.config import SRPOConfig
from srpo_verl.training.fields import (
    SHOWN,
    SHOWN_LOG_PROBS,
    TEACHER_ENTROPY,
    TEACHER_LOG_PROBS,
    TEACHER_PROMPTS,
    TOPK_IDS,
    flags,
    jagged,
)
from tests.training import rows as build

VOCABULARY = 280


def full(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach()
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).clone()


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: full(parameter) for name, parameter in module.named_parameters()}


def share(count: int, rank: int, world: int) -> list[int]:
    return list(range(rank * count // world, (rank + 1) * count // world))


def step_fields(worker: Any, batch: build.Batch) -> dict[str, list[torch.Tensor]]:
    """One rank's passes before the update, over the whole batch: ids, teacher's answers, weights, old log-probs."""
    everything = list(range(len(batch)))
    wants_ids = worker.srpo.support == "student" and bool(batch.plan.routed.any())
    data = build.log_prob_batch(batch, everything, srpo_collect_topk=wants_ids)
    output = worker.compute_log_prob(data)
    old_log_probs = list(response_from_nested(output["log_probs"], data["response_mask"]).unbind())
    routed = batch.plan.routed_rows()
    k = worker.srpo.topk
    fields: dict[str, list[torch.Tensor]] = {
        "old_log_probs": old_log_probs,
        "topk_ids": [torch.zeros(0, k, dtype=torch.int32) for _ in everything],
        "teacher_log_probs": [torch.zeros(0, k) for _ in everything],
        "entropy": [torch.zeros(0) for _ in everything],
    }
    if routed:
        if wants_ids:
            fields["topk_ids"] = list(output[TOPK_IDS].unbind())
        answer = worker.compute_teacher_targets(
            build.teacher_batch(batch, routed, fields["topk_ids"] if wants_ids else None)
        )
        for place, row in enumerate(routed):
            if not wants_ids:
                fields["topk_ids"][row] = answer[TOPK_IDS].unbind()[place]
            fields["teacher_log_probs"][row] = answer[TEACHER_LOG_PROBS].unbind()[place]
            fields["entropy"][row] = answer[TEACHER_ENTROPY].unbind()[place]
    fields["weights"] = build.weights_of(batch, fields["entropy"], beta=worker.srpo.beta)
    return fields


def gradient(worker: Any, batch: build.Batch, rows: list[int], fields: dict, **options: Any) -> dict[str, Any]:
    """Loss and full gradient of the rows of this rank, through the engine, without an optimiser step."""
    engine = worker.actor.engine
    given = {key: fields[key] for key in ("topk_ids", "teacher_log_probs", "weights", "old_log_probs")}
    defaults = {
        "use_remove_padding": True,
        "use_dynamic_bsz": False,
        "micro_batch_size_per_gpu": len(rows),
        "max_token_len_per_gpu": 64,
        "use_fused_kernels": False,
        "distillation_use_topk": bool(batch.plan.routed.any()),
        "calculate_entropy": False,
    }
    data = build.update_batch(batch, rows, **given, **{**defaults, **options})
    with engine.train_mode():
        engine.optimizer_zero_grad()
        output = engine.forward_backward_batch(data, loss_function=worker.actor.loss_fn, forward_only=False)
        found = {name: full(parameter.grad) for name, parameter in engine.module.named_parameters()}
        engine.optimizer_zero_grad()
    loss = torch.tensor(float(sum(output["loss"])))
    torch.distributed.all_reduce(loss)
    return {"loss": float(loss) / torch.distributed.get_world_size(), "gradient": found}


def fields_and_gradients(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, Any]:
    """Gradients for several ways to cut one batch. The fields come from `payload["fields"]` or are made here."""
    batch = build.make_batch(vocabulary=VOCABULARY, srpo=worker.srpo, **payload.get("batch", {}))
    fields = payload.get("fields") or step_fields(worker, batch)
    mine = share(len(batch), rank, world)
    if order := payload.get("order"):
        mine = [order[position] for position in mine]
    results = {name: gradient(worker, batch, mine, fields, **options) for name, options in payload["cuts"].items()}
    return {"fields": fields, "cuts": results, "weights": weights(worker.actor.engine.module)}


def train(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, Any]:
    """`payload["steps"]` real updates; returns the actor's and the teacher's weights after each, and the metrics."""
    history = []
    first = payload.get("first", 0)
    for step in range(first, first + payload["steps"]):
        batch = build.make_batch(vocabulary=VOCABULARY, srpo=worker.srpo, seed=step, **payload.get("batch", {}))
        fields = step_fields(worker, batch)
        data = build.update_batch(
            batch,
            share(len(batch), rank, world),
            **{key: fields[key] for key in ("topk_ids", "teacher_log_probs", "weights", "old_log_probs")},
            srpo_any_routed=bool(batch.plan.routed.any()),
            srpo_step=step,
            srpo_measure_branches=payload.get("measure_branches", False),
            mini_batch_size=payload.get("mini_batch_size", len(batch)),
            epochs=1,
            seed=1,
            dataloader_kwargs={"shuffle": False},
            calculate_entropy=False,
        )
        output = worker.update_actor(data)
        teacher = worker.teacher
        history.append(
            {
                "actor": weights(worker.actor.engine.module),
                "teacher": weights(teacher.engine.module) if teacher is not None else None,
                "teacher_gradients": teacher is not None
                and any(p.grad is not None or p.requires_grad for p in teacher.engine.module.parameters()),
                "metrics": tu.get(output, "metrics"),
            }
        )
    return {"history": history}


def policy_gradient_update(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, torch.Tensor]:
    """One update without a teacher, on two mini-batches; returns the actor's weights."""
    srpo = SRPOConfig(route="none", policy_gradient="all")
    batch = build.make_batch(vocabulary=VOCABULARY, srpo=srpo)
    everything = list(range(len(batch)))
    output = worker.compute_log_prob(data := build.log_prob_batch(batch, everything))
    part = batch.select(everything)
    fields = build.base_fields(batch, everything) | {
        "old_log_probs": response_from_nested(output["log_probs"], data["response_mask"]),
        "advantages": jagged(part["advantages"]),
        "rollout_is_weights": jagged(part["importance"]),
    }
    options = {
        "temperature": 1.0,
        "global_batch_size": len(batch),
        "mini_batch_size": len(batch) // 2,
        "epochs": 1,
        "seed": 1,
        "dataloader_kwargs": {"shuffle": False},
        "calculate_entropy": False,
    }
    worker.update_actor(tu.get_tensordict(fields, options))
    return weights(worker.actor.engine.module)


def save_and_load(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, Any]:
    """Train, save, train on; then load and compare what comes back."""
    train(worker, rank, world, {"steps": 2})
    worker.save_checkpoint(payload["folder"] + "/actor", None, 2)
    saved = weights(worker.actor.engine.module), weights(worker.teacher.engine.module)
    train(worker, rank, world, {"steps": 1})
    moved = weights(worker.actor.engine.module), weights(worker.teacher.engine.module)
    worker.load_checkpoint(payload["folder"] + "/actor")
    loaded = weights(worker.actor.engine.module), weights(worker.teacher.engine.module)
    return {"saved": saved, "moved": moved, "loaded": loaded}


def train_from(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, Any]:
    """Steps 2 and 3: after steps 0 and 1 and a save into the folder, or (`load`) after loading from there."""
    actor = payload["folder"] + "/actor"
    if payload["load"]:
        worker.load_checkpoint(actor)
    else:
        train(worker, rank, world, {"steps": 2})
        worker.save_checkpoint(actor, None, 2)
    last = train(worker, rank, world, {"steps": 2, "first": 2})["history"][-1]
    optimizer = worker.actor.engine.optimizer.state_dict()["state"].values()
    return {
        **last,
        "optimizer": [{name: full(value) for name, value in state.items()} for state in optimizer],
        "lr": worker.actor.engine.lr_scheduler.get_last_lr(),
        "random": torch.rand(4),
    }


def nonfinite_gradient(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, Any]:
    """One good step, then one whose first of two mini-batches (or both) has a gradient of NaN."""
    train(worker, rank, world, {"steps": 1})
    before = weights(worker.actor.engine.module), weights(worker.teacher.engine.module)
    calls, step = 0, worker.actor.engine.optimizer_step

    def poisoned():
        nonlocal calls
        calls += 1
        if calls in payload["poisoned"]:
            next(worker.actor.engine.module.parameters()).grad.mul_(float("nan"))
        return step()

    worker.actor.engine.optimizer_step = poisoned
    last = train(worker, rank, world, {"steps": 1, "first": 1, "mini_batch_size": 8})["history"][-1]
    return {**last, "before": before, "updates": calls}


def teacher_answers(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, Any]:
    """The fields of one step, after `payload["steps"]` updates that make teacher and actor differ."""
    train(worker, rank, world, {"steps": payload["steps"]})
    batch = build.make_batch(vocabulary=VOCABULARY, srpo=worker.srpo)
    fields = step_fields(worker, batch)
    teacher = weights(worker.teacher.engine.module) if worker.teacher is not None else None
    return {"fields": fields, "actor": weights(worker.actor.engine.module), "teacher": teacher}


def shown_answers(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, Any]:
    """The teacher's log-probs of `payload["rows"]`, the last of which is a filler, after two updates."""
    train(worker, rank, world, {"steps": 2})
    batch, rows = build.make_batch(vocabulary=VOCABULARY, srpo=worker.srpo), payload["rows"]
    part = batch.select(rows)
    fields = {
        SHOWN: flags(torch.tensor([True] * (len(rows) - 1) + [False])),
        TEACHER_PROMPTS: jagged([*part["teacher_prompts"][:-1], torch.tensor([0])]),
        "responses": jagged(part["responses"]),
    }
    output = worker.compute_shown_log_probs(
        tu.get_tensordict(fields, {"temperature": 1.0, "max_token_len_per_gpu": 2048})
    )
    teacher = weights(worker.teacher.engine.module) if worker.teacher is not None else None
    found = list(output[SHOWN_LOG_PROBS].unbind())
    return {"found": found, "actor": weights(worker.actor.engine.module), "teacher": teacher}
