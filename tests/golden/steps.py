"""Whole steps of every case through the real worker, one rank, no Ray; what `trainer.py` does, without its queue.

route -> old log-probs (+ ids) -> teacher -> step_signals -> [loss and gradient] -> update_actor
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.metric import reduce_metrics
from verl.workers.utils.padding import response_from_nested

from srpo_verl.core import TeacherPrompt
from srpo_verl.training.fields import (
    ROUTED,
    SHOWN,
    SHOWN_LOG_PROBS,
    TEACHER_ENTROPY,
    TEACHER_LOG_PROBS,
    TEACHER_PROMPTS,
    TEACHER_SAMPLED,
    TOKEN_WEIGHTS,
    TOPK_IDS,
    flags,
    jagged,
)
from srpo_verl.training.step.step_metrics import prompt_metrics, routing_metrics
from srpo_verl.training.step.step_signals import RoutedTokens, step_signals
from srpo_verl.training.step.teacher_gain import shown_siblings, teacher_gain
from srpo_verl.training.step.teacher_prompts import LeftOut
from srpo_verl.training.worker.logits_hook import leave_all_to_hook
from srpo_verl.training.worker.objective import ANY_ROUTED, DENOMINATOR_SCALE, METRIC_SCALE
from srpo_verl.training.worker.worker import COLLECT_TOPK, MEASURE_BRANCHES, SRPOWorker
from tests.golden import values
from tests.golden.batch import Batch, make_batch
from tests.golden.cases import ROWS, config_of
from tests.training.scenarios import full, weights

Rows = list[torch.Tensor]
# What a parameter's name loses: layers.0.self_attn.q_proj.weight is 0.q_proj in the record.
_SHORT = re.compile(r"(model|layers|self_attn|mlp)\.|\.weight$")


def run_cases(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, Any]:
    """Two steps of each case of `payload["cases"]`, each by a worker of its own; the given one only set the stage."""
    return {case: _run_case(config_of(case, Path(payload["model"]))) for case in payload["cases"]}


def _run_case(config: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    worker = SRPOWorker(config=config.actor_rollout_ref, role="actor")
    worker.init_model()
    return {f"step {step}": _step(worker, config, make_batch(worker.srpo, seed=step)) for step in range(2)}


def _step(worker: Any, config: Any, batch: Batch) -> dict[str, Any]:
    srpo, plan, masks = worker.srpo, batch.plan, [mask.float() for mask in batch.masks]
    base = _base_fields(batch)
    routed = plan.routed_rows()
    metrics = routing_metrics(plan)
    prompts = {row: TeacherPrompt(batch.teacher_prompts[row].tolist()) for row in routed}
    metrics |= prompt_metrics(list(prompts.values()), LeftOut())

    wants_ids = bool(routed) and srpo.logit_loss and srpo.support == "student"
    options = {"calculate_entropy": True, "compute_loss": False, "temperature": 1.0, COLLECT_TOPK: wants_ids}
    output = worker.compute_log_prob(tu.get_tensordict(dict(base), options))
    old_log_probs, entropy = (
        list(response_from_nested(output[name], base["response_mask"]).unbind()) for name in ("log_probs", "entropy")
    )
    ids = list(output[TOPK_IDS].unbind()) if wants_ids else None

    corrected = bool(config.algorithm.rollout_correction.rollout_is)
    tokens = None
    if routed:
        ids, log_probs, found = _ask_teacher(worker, batch, base, ids)
        tokens = RoutedTokens(
            routed,
            **found,
            student_entropy=[entropy[row] for row in routed],
            student_log_probs=[old_log_probs[row] for row in routed],
            importance=[batch.importance[row] for row in routed] if corrected else None,
        )
        if srpo.teacher_gain_freq:
            metrics["srpo/teacher_gain"] = _gain(worker, batch, prompts, old_log_probs, masks)
    signals = step_signals(
        plan,
        srpo,
        rewards=batch.scores,
        masks=masks,
        normalize_by_std=config.algorithm.norm_adv_by_std_in_grpo,
        tokens=tokens,
    )
    advantages, token = signals.advantages, signals.weights
    metrics |= signals.metrics

    fields = base | {"old_log_probs": jagged(old_log_probs), "advantages": jagged(advantages)}
    if corrected:
        fields["rollout_is_weights"] = jagged(batch.importance)
    record = {
        "routed": " ".join(map(str, routed)),
        "demonstration": values.integers(plan.routing.demonstration),
        "provider": values.integers(plan.routing.provider),
        "advantages": values.tensor(advantages),
        "old_log_probs": values.tensor(old_log_probs),
        "student_entropy": values.tensor(entropy),
    }
    options = {"temperature": 1.0, "calculate_entropy": False}
    if tokens is not None:
        record["topk_ids"], record["teacher_log_probs"] = values.tensor(ids), values.tensor(log_probs)
        record["teacher_entropy"], record["weights"] = values.tensor(tokens.teacher_entropy), values.tensor(token)
    if srpo.logit_loss and tokens is not None:
        fields |= {TOPK_IDS: jagged(ids), TEACHER_LOG_PROBS: jagged(log_probs), TOKEN_WEIGHTS: jagged(token)}
        options[METRIC_SCALE] = _updates(config) / max(signals.routed_tokens, 1)
        options[DENOMINATOR_SCALE] = signals.denominator_scale
    any_routed = TOPK_IDS in fields
    record |= _gradient(worker, fields, {**options, "distillation_use_topk": any_routed, ANY_ROUTED: any_routed})
    metrics |= _update(worker, config, fields, options)
    record["metrics"] = values.numbers(metrics)
    record["actor"] = _module(worker.actor)
    record["teacher"] = _module(worker.teacher) if worker.teacher is not None else "none"
    return record


def _base_fields(batch: Batch) -> dict[str, torch.Tensor]:
    inputs = [torch.cat(pair) for pair in zip(batch.prompts, batch.responses, strict=True)]
    return {
        "prompts": jagged(batch.prompts),
        "responses": jagged(batch.responses),
        "response_mask": jagged(batch.masks),
        "loss_mask": jagged(batch.masks),
        "input_ids": jagged(inputs),
        "position_ids": jagged([torch.arange(row.numel()) for row in inputs]),
        ROUTED: flags(batch.plan.routed),
    }


def _teacher_call(batch: Batch, rows: Sequence[int], prompts: Sequence[torch.Tensor], flag: str) -> TensorDict:
    """Rows to ask about, and one filler behind them: the padding row at the end of the batch."""
    fields = {
        flag: flags(torch.tensor([True] * len(rows) + [False])),
        TEACHER_PROMPTS: jagged([*prompts, torch.tensor([0])]),
        "responses": jagged([batch.responses[row] for row in [*rows, -1]]),
    }
    return tu.get_tensordict(fields, {"temperature": 1.0, "max_token_len_per_gpu": 96})


def _ask_teacher(
    worker: Any, batch: Batch, base: Mapping[str, torch.Tensor], ids: Rows | None
) -> tuple[Rows, Rows, dict[str, Rows]]:
    """Ids and log-probs per row of the batch, of length zero where not routed; what is known of the routed rows.

    Without a loss on logits the sampled tokens are recorded as the ids.
    """
    srpo, routed = worker.srpo, batch.plan.routed_rows()
    data = _teacher_call(batch, routed, [batch.teacher_prompts[row] for row in routed], ROUTED)
    if ids is not None:
        data[TOPK_IDS] = jagged([ids[row] for row in [*routed, -1]])
    answer = worker.compute_teacher_targets(data)
    names = [name for name in (TEACHER_LOG_PROBS, TEACHER_ENTROPY, TEACHER_SAMPLED, TOPK_IDS) if name in answer]
    found = {name: dict(zip(routed, answer[name].unbind()[:-1], strict=True)) for name in names}
    k = srpo.topk if srpo.logit_loss else 1
    if not srpo.logit_loss:
        found[TOPK_IDS] = {row: batch.responses[row].to(torch.int32).unsqueeze(-1) for row in routed}
        found[TEACHER_LOG_PROBS] = {row: value.unsqueeze(-1) for row, value in found[TEACHER_SAMPLED].items()}
    if ids is None:
        ids = [found[TOPK_IDS].get(row, torch.zeros(0, k, dtype=torch.int32)) for row in range(len(batch))]
    log_probs = [found[TEACHER_LOG_PROBS].get(row, torch.zeros(0, k)) for row in range(len(batch))]
    known = {"teacher_entropy": TEACHER_ENTROPY, "teacher_log_probs": TEACHER_SAMPLED}
    return ids, log_probs, {name: list(found[field].values()) for name, field in known.items()}


def _gain(
    worker: Any, batch: Batch, prompts: Mapping[int, TeacherPrompt], old_log_probs: Rows, masks: Rows
) -> float | None:
    shown = shown_siblings(batch.plan, prompts)
    tokens = [torch.tensor(prompt.input_ids) for prompt in shown.values()]
    answer = worker.compute_shown_log_probs(_teacher_call(batch, list(shown), tokens, SHOWN))
    found = answer[SHOWN_LOG_PROBS].unbind()[:-1]
    return teacher_gain(found, [old_log_probs[row] for row in shown], [masks[row] for row in shown])


def _gradient(worker: Any, fields: Mapping[str, torch.Tensor], options: Mapping[str, Any]) -> dict[str, Any]:
    """Loss and gradient of the whole batch, by the engine's own way to cut it, without an optimiser step."""
    engine, config = worker.actor.engine, worker.actor.engine_config
    names = ("use_dynamic_bsz", "max_token_len_per_gpu", "micro_batch_size_per_gpu", "use_fused_kernels")
    cut = {name: getattr(config, name) for name in names} | {"use_remove_padding": True, "global_batch_size": ROWS}
    data = tu.get_tensordict(dict(fields), {**options, **cut})
    if worker.srpo.own_log_probs:
        leave_all_to_hook(data)
    with engine.train_mode():
        engine.optimizer_zero_grad()
        output = engine.forward_backward_batch(data, loss_function=worker.actor.loss_fn, forward_only=False)
        gradient = {name: full(parameter.grad) for name, parameter in engine.module.named_parameters()}
        engine.optimizer_zero_grad()
    return {
        "loss": values.number(float(sum(output["loss"]))),
        "gradient": {_SHORT.sub("", name): values.tensor(value, entries=0) for name, value in gradient.items()},
    }


def _update(
    worker: Any, config: Any, fields: Mapping[str, torch.Tensor], options: Mapping[str, Any]
) -> dict[str, float]:
    """`update_actor`, and its metrics as verl's trainer reduces them; those of clock and memory are left out."""
    rows = ROWS // _updates(config)
    whole = {
        **options,
        ANY_ROUTED: TOPK_IDS in fields,
        MEASURE_BRANCHES: TOPK_IDS in fields and worker.srpo.grad_norm_freq > 0,
        "global_batch_size": rows,
        "mini_batch_size": rows,
        "epochs": 1,
        "seed": 1,
        "dataloader_kwargs": {"shuffle": False},
    }
    output = worker.update_actor(tu.get_tensordict(dict(fields), whole))
    metrics = reduce_metrics(dict(tu.get(output, "metrics")))
    return {key: float(value) for key, value in metrics.items() if not key.startswith("perf/") and key != "mfu"}


def _updates(config: Any) -> int:
    return ROWS // (config.actor_rollout_ref.actor.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n)


def _module(worker: Any) -> str:
    return values.tensor(list(weights(worker.engine.module).values()))
