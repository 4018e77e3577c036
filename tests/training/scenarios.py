"""What the ranks of `worker_process.run_ranks` do; module-level functions, so that a spawned process finds them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import response_from_nested

from srpo_verl.config import SRPOConfig
from srpo_verl.training.fields import (
    LOSS_DIVERGENCE,
    SHOWN,
    SHOWN_LOG_PROBS,
    TEACHER_ENTROPY,
    TEACHER_LOG_PROBS,
    TEACHER_PROMPTS,
    TEACHER_SAMPLED,
    TOPK_IDS,
    flags,
    jagged,
    lengths_of,
)
from srpo_verl.training.worker import worker as worker_module
from tests.training import rows as build

VOCABULARY = 280


def full(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach()
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).clone()


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: full(parameter) for name, parameter in module.named_parameters()}


class Held:
    """The adapter of a teacher that is the actor's model, as a module has its parameters."""

    def __init__(self, teacher: Any):
        self.module, self.shards = teacher.weights.module, teacher.weights.adapter or {}

    def named_parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, shard in self.shards.items():
            like = self.module.get_parameter(name)
            shape = {"shape": like.shape, "stride": like.stride(), "run_check": False}
            yield name, DTensor.from_local(shard, like.device_mesh, like.placements, **shape)

    def parameters(self) -> Iterator[torch.Tensor]:
        return iter(self.shards.values())


def teacher_of(worker: Any) -> Any:
    """The teacher, with its weights where an engine has them."""
    if worker.teacher is None or hasattr(worker.teacher, "engine"):
        return worker.teacher
    return SimpleNamespace(engine=SimpleNamespace(module=Held(worker.teacher)), weights=SimpleNamespace(rest={}))


def share(worker: Any, count: int) -> list[int]:
    """The rows that verl would send to this rank."""
    engine = worker.actor.engine
    rank, size = engine.get_data_parallel_rank(), engine.get_data_parallel_size()
    return list(range(rank * count // size, (rank + 1) * count // size))


def answer(worker: Any, output: Any) -> Any:
    """The output of a call, on the ranks too that share their rows with the one that has it."""
    found, group = [output], worker.actor.engine.ulysses_parallel_group
    if group is not None:
        assert (output is None) == (torch.distributed.get_rank(group) > 0)
        torch.distributed.broadcast_object_list(found, group=group, group_src=0)
    return found[0]


def step_fields(worker: Any, batch: build.Batch) -> dict[str, list[torch.Tensor]]:
    """One rank's passes before the update, over the whole batch: ids, teacher's answers, weights, old log-probs."""
    everything = list(range(len(batch)))
    wants_ids = worker.srpo.support == "student" and bool(batch.plan.routed.any())
    data = build.log_prob_batch(batch, everything, srpo_collect_topk=wants_ids)
    output = answer(worker, worker.compute_log_prob(data))
    old_log_probs = list(response_from_nested(output["log_probs"], data["response_mask"]).unbind())
    routed = batch.plan.routed_rows()
    k = worker.srpo.topk
    fields: dict[str, list[torch.Tensor]] = {
        "old_log_probs": old_log_probs,
        "topk_ids": [torch.zeros(0, k, dtype=torch.int32) for _ in everything],
        "teacher_log_probs": [torch.zeros(0, k) for _ in everything],
        "entropy": [torch.zeros(0) for _ in everything],
        "sampled": [torch.zeros(0) for _ in everything],
    }
    if routed:
        if wants_ids:
            fields["topk_ids"] = list(output[TOPK_IDS].unbind())
        asked = build.teacher_batch(batch, routed, fields["topk_ids"] if wants_ids else None)
        found = answer(worker, worker.compute_teacher_targets(asked))
        for place, row in enumerate(routed):
            if not wants_ids:
                fields["topk_ids"][row] = found[TOPK_IDS].unbind()[place]
            fields["teacher_log_probs"][row] = found[TEACHER_LOG_PROBS].unbind()[place]
            fields["entropy"][row] = found[TEACHER_ENTROPY].unbind()[place]
            fields["sampled"][row] = found[TEACHER_SAMPLED].unbind()[place]
    fields["weights"] = build.weights_of(batch, fields["entropy"], beta=worker.srpo.beta)
    return fields


def loss_divergence(worker: Any, batch: build.Batch, fields: dict) -> list[torch.Tensor]:
    """The loss's divergence of every row, length 0 where not routed, with the weights as they are."""
    given = {
        TOPK_IDS: jagged(fields["topk_ids"]),
        TEACHER_LOG_PROBS: jagged(fields["teacher_log_probs"]),
        **build.base_fields(batch, list(range(len(batch)))),
    }
    options = {"temperature": 1.0, "use_dynamic_bsz": True, "max_token_len_per_gpu": 160}
    found = answer(worker, worker.compute_loss_divergence(tu.get_tensordict(given, options)))
    assert list(found.keys()) == [LOSS_DIVERGENCE]
    return list(found[LOSS_DIVERGENCE].unbind())


def loss_divergences(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, Any]:
    """What `loss_divergence` gives once actor and teacher differ, and the weights, which it leaves alone."""
    train(worker, rank, world, {"steps": 1, **payload})
    batch = build.make_batch(vocabulary=VOCABULARY, srpo=worker.srpo, **payload["batch"])
    fields = step_fields(worker, batch)
    before = weights(worker.actor.engine.module)
    found = loss_divergence(worker, batch, fields)
    actor = weights(worker.actor.engine.module)
    assert all(torch.equal(actor[name], value) for name, value in before.items())
    teacher = weights(teacher_of(worker).engine.module) if worker.teacher is not None else None
    return {"fields": fields, "divergence": found, "actor": actor, "teacher": teacher}


def gradient(worker: Any, batch: build.Batch, rows: list[int], fields: dict, **options: Any) -> dict[str, Any]:
    """Loss and full gradient of the rows of this rank, through the engine, without an optimiser step."""
    engine, srpo = worker.actor.engine, worker.srpo
    given = {key: fields[key] for key in ("topk_ids", "teacher_log_probs", "weights", "old_log_probs")}
    defaults = {
        "use_remove_padding": True,
        "use_dynamic_bsz": False,
        "micro_batch_size_per_gpu": len(rows),
        "max_token_len_per_gpu": 64,
        "use_fused_kernels": False,
        # As `SRPOWorker.update_actor` sets them.
        "distillation_use_topk": worker.srpo.own_log_probs
        or (worker.srpo.logit_loss and bool(batch.plan.routed.any())),
        "distillation_only": srpo.own_log_probs,
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
    move(worker, payload.get("off_policy", 1.0))
    mine = share(worker, len(batch))
    if order := payload.get("order"):
        mine = [order[position] for position in mine]
    results = {name: gradient(worker, batch, mine, fields, **options) for name, options in payload["cuts"].items()}
    return {"fields": fields, "cuts": results, "weights": weights(worker.actor.engine.module)}


def masked_mini_batch(worker: Any, rank: int, world: int, payload: Any) -> dict[str, Any]:
    """Loss and gradient of a mini-batch in which every token is masked."""
    batch = build.make_batch(vocabulary=VOCABULARY, srpo=worker.srpo)
    fields = step_fields(worker, batch)
    batch = replace(batch, masks=[torch.zeros_like(mask) for mask in batch.masks])
    fields["weights"] = [torch.zeros_like(row) for row in fields["weights"]]
    return gradient(worker, batch, list(range(len(batch))), fields)


def move(worker: Any, factor: float) -> None:
    """Multiply the actor's weights, the same on any number of ranks; an optimiser's step on zeros is not."""
    with torch.no_grad():
        for parameter in worker.actor.engine.module.parameters():
            parameter.mul_(factor)


def over_settings(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, Any]:
    """By setting, with a worker of its own: fields, off-policy gradients, then the metrics of an update.

    The actor is moved away from the teacher first. Among the fields is what the teacher says of rows shown to it.
    """
    from tests.training.worker_process import worker_config

    found = {}
    for name, overrides in payload["settings"].items():
        config = worker_config(worker.config.model.path, [*payload["overrides"], *overrides])
        one = type(worker)(config=config, role="actor")
        one.init_model()
        for mesh in ("actor", "teacher"):
            assert one._query_dispatch_info(mesh) == one.actor.engine.get_data_parallel_rank()
            assert one._query_collect_info(mesh) == one.actor.engine.is_mp_src_rank_with_outputs()
        move(one, 0.9)
        result = fields_and_gradients(one, rank, world, {**payload, "off_policy": 0.95})
        batch = build.make_batch(vocabulary=VOCABULARY, srpo=one.srpo, **payload.get("batch", {}))
        result["fields"]["divergence"] = loss_divergence(one, batch, result["fields"])
        result["fields"]["shown"] = shown(one, [3, 0, 7, 5])
        once = {"steps": 1, "measure_branches": True, "batch": payload.get("batch", {})}
        found[name] = {**result, "metrics": train(one, rank, world, once)["history"][0]["metrics"]}
    return found


def train(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, Any]:
    """`payload["steps"]` real updates; returns the actor's and the teacher's weights after each, and the metrics."""
    history = []
    first = payload.get("first", 0)
    for step in range(first, first + payload["steps"]):
        batch = build.make_batch(vocabulary=VOCABULARY, srpo=worker.srpo, seed=step, **payload.get("batch", {}))
        fields = step_fields(worker, batch)
        data = build.update_batch(
            batch,
            share(worker, len(batch)),
            **{key: fields[key] for key in ("topk_ids", "teacher_log_probs", "weights", "old_log_probs")},
            srpo_any_routed=bool(batch.plan.routed.any()),
            srpo_step=step,
            srpo_measure_branches=payload.get("measure_branches", False),
            mini_batch_size=payload.get("mini_batch_size", len(batch)),
            epochs=payload.get("epochs", 1),
            seed=1,
            dataloader_kwargs={"shuffle": False},
            calculate_entropy=payload.get("calculate_entropy", False),
            **payload.get("options", {}),
        )
        output = answer(worker, worker.update_actor(data))
        teacher = teacher_of(worker)
        history.append(
            {
                "actor": weights(worker.actor.engine.module),
                "teacher": weights(teacher.engine.module) if teacher is not None else None,
                "teacher_gradients": teacher is not None
                and any(p.grad is not None or p.requires_grad for p in teacher.engine.module.parameters()),
                "rest": dict(teacher.weights.rest) if teacher is not None else {},
                "metrics": tu.get(output, "metrics"),
            }
        )
    return {"history": history}


def entropies_in_bfloat16(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, list[torch.Tensor]]:
    """The teacher's entropies that the worker collects, and those in float64 of the very logits that it was given."""
    seen: list[torch.Tensor] = []

    class Recorder(worker_module.TeacherTargets):
        def on_logits(self, logits, data):
            q = logits.double().log_softmax(-1)
            entropy = -(q.exp() * q).sum(-1)
            starts = data["input_ids"].offsets()[:-1].tolist()
            for start, prompt, response in zip(
                starts, lengths_of(data["prompts"]).tolist(), lengths_of(data["responses"]).tolist(), strict=True
            ):
                seen.append(entropy[start + prompt - 1 : start + prompt - 1 + response])
            return super().on_logits(logits, data)

    worker_module.TeacherTargets = Recorder
    batch = build.make_batch(vocabulary=VOCABULARY, srpo=worker.srpo)
    collected = step_fields(worker, batch)["entropy"]
    return {"collected": [collected[row] for row in batch.plan.routed_rows()], "exact": seen}


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
    saved = weights(worker.actor.engine.module), weights(teacher_of(worker).engine.module)
    train(worker, rank, world, {"steps": 1})
    moved = weights(worker.actor.engine.module), weights(teacher_of(worker).engine.module)
    worker.load_checkpoint(payload["folder"] + "/actor")
    loaded = weights(worker.actor.engine.module), weights(teacher_of(worker).engine.module)
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
    before = weights(worker.actor.engine.module), weights(teacher_of(worker).engine.module)
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
    teacher = weights(teacher_of(worker).engine.module) if worker.teacher is not None else None
    return {"fields": fields, "actor": weights(worker.actor.engine.module), "teacher": teacher}


def shown(worker: Any, rows: list[int]) -> list[torch.Tensor]:
    """The teacher's log-probs of these rows, the last of which is a filler."""
    part = build.make_batch(vocabulary=VOCABULARY, srpo=worker.srpo).select(rows)
    fields = {
        SHOWN: flags(torch.tensor([True] * (len(rows) - 1) + [False])),
        TEACHER_PROMPTS: jagged([*part["teacher_prompts"][:-1], torch.tensor([0])]),
        "responses": jagged(part["responses"]),
    }
    asked = tu.get_tensordict(fields, {"temperature": 1.0, "max_token_len_per_gpu": 2048})
    return list(answer(worker, worker.compute_shown_log_probs(asked))[SHOWN_LOG_PROBS].unbind())


def shown_answers(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, Any]:
    """The teacher's log-probs of `payload["rows"]`, the last of which is a filler, after two updates."""
    train(worker, rank, world, {"steps": 2})
    found = shown(worker, payload["rows"])
    teacher = weights(teacher_of(worker).engine.module) if worker.teacher is not None else None
    return {"found": found, "actor": weights(worker.actor.engine.module), "teacher": teacher}
