"""LoRA on the tiny model: what the ranks do, and the weights that an adapter makes of the folder's, in float64."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.distributed.tensor import DTensor

from tests.training import naive_step, scenarios
from tests.training import rows as build

RANK, ALPHA = 4, 8
SCALE = ALPHA / RANK
LORA = [f"actor_rollout_ref.model.lora_rank={RANK}", f"actor_rollout_ref.model.lora_alpha={ALPHA}"]
_A, _B = ".lora_A.default.weight", ".lora_B.default.weight"


def merged(model: Path, adapter: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """W0 + s B A of every weight; `adapter` by peft's names, whatever else is among them."""
    weights = {name: value.double() for name, value in naive_step.load(model).state_dict().items()}
    for name, a in adapter.items():
        if name.endswith(_A):
            layer = name.removesuffix(_A)
            plain = layer.removeprefix("base_model.model.") + ".weight"
            weights[plain] = weights[plain] + SCALE * adapter[layer + _B].double() @ a.double()
    return weights


def factors(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in weights.items() if ".lora_" in name}


def adapted(model: Path, weights: dict[str, torch.Tensor]) -> PeftModel:
    """The folder's model with an adapter, in float64, in one process and without FSDP."""
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    found = get_peft_model(naive_step.load(model), config).double()
    assert not found.load_state_dict({name: v.double() for name, v in weights.items()}, strict=False).unexpected_keys
    return found


def distance(teacher: dict[str, torch.Tensor], actor: dict[str, torch.Tensor]) -> float:
    """|| teacher - actor || / || actor || over all weights."""
    differences = sum(float((teacher[name] - actor[name]).square().sum()) for name in actor)
    return (differences / sum(float(value.square().sum()) for value in actor.values())) ** 0.5


def write_adapter(model: Path, folder: Path) -> dict[str, torch.Tensor]:
    """A random adapter with a B that is not zero, as peft saves it; its factors by name."""
    torch.manual_seed(3)
    found = adapted(model, {}).float()
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.05)
    found.save_pretrained(folder)
    return factors({name: value.detach().clone() for name, value in found.named_parameters()})


def weights_of_teacher(worker: Any) -> dict[str, torch.Tensor] | None:
    """Of one in the actor's model: its adapter, {} without one."""
    return scenarios.weights(scenarios.teacher_of(worker).engine.module) if worker.teacher is not None else None


def train(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, Any]:
    """`scenarios.train` from the beginning, the answers of a step after it, and what the process holds."""
    held = _parameters_in_memory()
    initial = scenarios.weights(worker.actor.engine.module)
    history = scenarios.train(worker, rank, world, payload)["history"] if payload["steps"] else []
    fields = scenarios.step_fields(worker, build.make_batch(vocabulary=scenarios.VOCABULARY, srpo=worker.srpo))
    return {
        "initial": initial,
        "history": history,
        "held": held,
        "fields": fields,
        "actor": scenarios.weights(worker.actor.engine.module),
        "teacher": weights_of_teacher(worker),
    }


def save(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, Any]:
    """Two updates and a checkpoint."""
    scenarios.train(worker, rank, world, {"steps": 2})
    worker.save_checkpoint(payload["folder"] + "/actor", None, 2)
    return {"actor": scenarios.weights(worker.actor.engine.module)}


def handed_over(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, Any]:
    """What the rollouts are given after two updates: weights by name, and the adapter's config if it is apart."""
    scenarios.train(worker, rank, world, {"steps": 2})
    pairs, described = worker.actor.engine.get_per_tensor_param(base_sync_done=True)
    given = {name: tensor.clone() for name, tensor in pairs}
    return {"given": given, "described": described, "actor": scenarios.weights(worker.actor.engine.module)}


def gradients(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, Any]:
    """The gradient of one batch after two updates, by parameter that has one."""
    scenarios.train(worker, rank, world, {"steps": 2})
    batch = build.make_batch(vocabulary=scenarios.VOCABULARY, srpo=worker.srpo)
    fields, engine = scenarios.step_fields(worker, batch), worker.actor.engine
    given = {key: fields[key] for key in ("topk_ids", "teacher_log_probs", "weights", "old_log_probs")}
    rows = scenarios.share(worker, len(batch))
    options = {"use_remove_padding": True, "use_dynamic_bsz": True, "max_token_len_per_gpu": 256}
    options |= {"use_fused_kernels": False, "distillation_use_topk": True, "calculate_entropy": False}
    with engine.train_mode():
        engine.optimizer_zero_grad()
        engine.forward_backward_batch(
            build.update_batch(batch, rows, **given, **options), loss_function=worker.actor.loss_fn, forward_only=False
        )
        pairs = engine.module.named_parameters()
        found = {name: scenarios.full(p.grad) for name, p in pairs if p.grad is not None}
    return {
        "gradient": found,
        "actor": scenarios.weights(engine.module),
        "teacher": weights_of_teacher(worker),
        "teacher_gradients": any(
            tensor.grad is not None or tensor.requires_grad
            for tensor in (scenarios.teacher_of(worker).engine.module.parameters() if worker.teacher else ())
        ),
    }


def teacher_first(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, Any]:
    """The very first pass is the teacher's; then one update."""
    batch = build.make_batch(vocabulary=scenarios.VOCABULARY, srpo=worker.srpo)
    routed = batch.plan.routed_rows()
    ids = [torch.zeros(response.numel(), worker.srpo.topk, dtype=torch.int32) for response in batch.responses]
    worker.compute_teacher_targets(build.teacher_batch(batch, routed, ids))
    initial = scenarios.weights(worker.actor.engine.module)
    return {"initial": initial, **scenarios.train(worker, rank, world, {"steps": 2})["history"][-1]}


def failed_pass(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, Any]:
    """The actor's weights and answers before, and after a teacher's pass that raised."""
    scenarios.train(worker, rank, world, {"steps": 2})
    batch = build.make_batch(vocabulary=scenarios.VOCABULARY, srpo=worker.srpo)
    everything = list(range(len(batch)))

    def state() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        output = worker.compute_log_prob(build.log_prob_batch(batch, everything))
        return scenarios.weights(worker.actor.engine.module), output["log_probs"].values().clone()

    before, seen = state(), {}

    def fail(*_: Any, **__: Any) -> None:
        seen["meanwhile"] = scenarios.weights(worker.actor.engine.module)
        raise RuntimeError("in the middle of the teacher's pass")

    worker.actor.engine.infer_batch, infer_batch = fail, worker.actor.engine.infer_batch
    ids = [torch.zeros(response.numel(), worker.srpo.topk, dtype=torch.int32) for response in batch.responses]
    try:
        worker.compute_teacher_targets(build.teacher_batch(batch, batch.plan.routed_rows(), ids))
    except RuntimeError as error:
        seen["error"] = str(error)
    worker.actor.engine.infer_batch = infer_batch
    return {"before": before, "after": state(), **seen}


def _parameters_in_memory() -> int:
    """Elements of all parameters that this process holds."""
    gc.collect()
    held = {id(thing): thing for thing in gc.get_objects() if isinstance(thing, nn.Parameter)}
    return sum(parameter.numel() for parameter in held.values())


def train_a_given_adapter(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, Any]:
    """`scenarios.train` of an adapter that is the same in every process: verl's begins with random numbers."""
    generator = torch.Generator().manual_seed(0)
    own = worker.teacher.weights.adapter
    with torch.no_grad():
        for name, parameter in worker.actor.engine.module.named_parameters():
            if ".lora_" in name:
                shard = parameter.to_local() if isinstance(parameter, DTensor) else parameter
                shard.copy_(0.05 * torch.randn(shard.shape, generator=generator))
                if own is not None:
                    own[name].copy_(shard)
    return scenarios.train(worker, rank, world, payload)
