"""One training step without verl's trainer, Ray or vLLM: a twin of `srpo_verl.training` for tiny models.

Only the traffic is new. Routing, advantages, the student's top-K, the teacher's targets, weights, the loss (verl's
policy loss included) and the EMA are the functions that the trainer and its workers call. `tests/laboratory` holds
it against the real worker. One update per batch, so the forward pass of the update also gives the old log-probs.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from tensordict import TensorDict
from transformers import PreTrainedModel
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.torch_functional import get_constant_schedule_with_warmup

from srpo_verl.config import settings
from srpo_verl.training.fields import (
    ROUTED,
    TEACHER_ENTROPY,
    TEACHER_LOG_PROBS,
    TEACHER_SAMPLED,
    TOKEN_WEIGHTS,
    TOPK_IDS,
    flags,
    from_lengths,
    jagged,
    lengths_of,
    prediction_positions,
)
from srpo_verl.training.step.routed_tokens import RoutedTokens, mean_log_prob
from srpo_verl.training.step.routing_plan import RoutingPlan
from srpo_verl.training.step.step_signals import step_signals
from srpo_verl.training.step.teacher_gain import teacher_gain
from srpo_verl.training.worker.collectors import StudentTopK, TeacherTargets
from srpo_verl.training.worker.objective import (
    ANY_ROUTED,
    DENOMINATOR_SCALE,
    DIVERGENCE,
    METRIC_SCALE,
    SRPOObjective,
)
from srpo_verl.training.worker.teacher_weights import TeacherWeights


@dataclass(frozen=True)
class Batch:
    """Rollouts in batch order; lists have one entry per rollout."""

    plan: RoutingPlan
    prompts: list[torch.Tensor]
    responses: list[torch.Tensor]
    masks: list[torch.Tensor]
    rewards: torch.Tensor
    # By row that the teacher is asked about.
    teacher_prompts: dict[int, torch.Tensor]
    # Log-probs of the sampler, or importance weights if they are given.
    rollout_log_probs: list[torch.Tensor] | None = None
    importance: list[torch.Tensor] | None = None
    # The same of each further pass of the teacher (`srpo.contrast`).
    passes: Sequence[dict[int, torch.Tensor]] = ()


class Twin:
    """Student, EMA teacher and optimiser of one run.

    Args:
        model: the start policy, trained in place; float32 on the CPU.
        config: `srpo_lab` composed with the method's overrides.
    """

    def __init__(self, model: PreTrainedModel, config: DictConfig):
        self.srpo = settings(config.srpo)
        if self.srpo.variant("teacher").mix_logits is not None:
            raise ValueError("the twin's teacher mixes no logits; run srpo.teacher.kind=trust_region through verl.")
        self.steps = 0
        self.config = config
        self.actor_config = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
        self.model = model.train()
        self.teacher = copy.deepcopy(model).requires_grad_(False) if self.srpo.owns_teacher else model
        self.objective = SRPOObjective(self.actor_config, self.srpo)
        optim = self.actor_config.optim
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=optim.lr, betas=tuple(optim.betas), weight_decay=optim.weight_decay
        )
        self.schedule = get_constant_schedule_with_warmup(self.optimizer, optim.lr_warmup_steps)

    def step(self, batch: Batch, *, measure_branches: bool = False) -> dict[str, float]:
        """Update on one batch; returns the metrics under the names of docs/metrics.md."""
        loss, metrics, data, outputs = self.loss(batch)
        if measure_branches and DIVERGENCE in outputs:
            clock = time.process_time()
            metrics |= self._branch_norms(outputs, data)
            metrics["measuring_seconds"] = time.process_time() - clock
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.actor_config.optim.clip_grad)
        self.optimizer.step()
        self.schedule.step()
        if self.srpo.owns_teacher:
            self.steps += 1
            variant = self.srpo.variant("teacher")
            step = None
            if variant.function is not None:
                step = lambda own, actor: variant(own, actor, self.steps, self.srpo)  # noqa: E731
            metrics["srpo/teacher_distance"] = TeacherWeights(self.teacher).follow(self.model, step)
        return metrics | {"actor/loss": float(loss.detach()), "actor/grad_norm": float(norm)}

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, float], TensorDict, dict[str, torch.Tensor]]:
        """Loss of the batch, metrics, and what `SRPOObjective` needs to compute it once more."""
        plan, srpo = batch.plan, self.srpo
        masks = [mask.float() for mask in batch.masks]
        sequences = [torch.cat(pair) for pair in zip(batch.prompts, batch.responses, strict=True)]
        data = tu.get_tensordict(
            {
                "prompts": jagged(batch.prompts),
                "responses": jagged(batch.responses),
                "response_mask": _padded_later(batch.masks),
                "input_ids": jagged(sequences),
                ROUTED: flags(plan.asked),
            },
            {"dp_size": 1, "global_batch_size": len(sequences), "batch_num_tokens": int(sum(m.sum() for m in masks))},
        )
        logits = packed_logits(self.model, sequences)
        tokens = data["input_ids"].values()
        log_probs = torch.log_softmax(logits, dim=-1).gather(-1, tokens.roll(-1)[:, None]).squeeze(-1)
        lengths = lengths_of(data["responses"])
        predictions = prediction_positions(data["input_ids"], lengths)
        old = list(log_probs.detach()[predictions].split(lengths.tolist()))
        importance = self._importance(batch, old)
        with torch.no_grad():
            spread = torch.special.entr(logits[predictions].softmax(-1)).sum(-1)
        entropy = list(spread.split(lengths.tolist()))
        valid = torch.cat(masks) > 0
        metrics = {"actor/entropy": float(spread[valid].mean())}

        clock = time.process_time()
        known = (entropy, old, importance)
        tokens = self._ask_teacher(batch, data, logits, *known) if plan.asked.any() else None
        metrics["teacher_seconds"] = time.process_time() - clock

        signals = step_signals(
            plan,
            srpo,
            rewards=batch.rewards,
            masks=masks,
            normalize_by_std=bool(self.config.algorithm.norm_adv_by_std_in_grpo),
            tokens=tokens,
        )
        metrics |= signals.metrics
        for name, rows in (
            ("advantages", signals.advantages),
            ("old_log_probs", old),
            ("rollout_is_weights", importance),
        ):
            data[name] = _padded_later(rows)
        outputs = {"log_probs": from_lengths(log_probs, lengths_of(data["input_ids"]))}
        if tokens is not None and srpo.logit_loss:
            data[TOKEN_WEIGHTS] = jagged(signals.weights)
            tu.assign_non_tensor(data, **{ANY_ROUTED: True, METRIC_SCALE: 1.0 / max(signals.routed_tokens, 1)})
            tu.assign_non_tensor(data, **{DENOMINATOR_SCALE: signals.denominator_scale})
            divergence = self.objective.on_logits(logits, data)[DIVERGENCE].squeeze(0)
            outputs[DIVERGENCE] = from_lengths(divergence, lengths_of(data["input_ids"]))
        loss, found = self.objective.on_outputs(outputs, data, None)
        metrics |= {key: float(getattr(value, "values", [value])[0]) for key, value in found.items()}
        return loss, metrics, data, outputs

    @torch.no_grad()
    def teacher_gain(self, batch: Batch) -> float | None:
        """`srpo/teacher_gain` of the weights as they are; None if nothing is shown to the teacher."""
        siblings = {int(batch.plan.routing.demonstration[row]): row for row in batch.plan.asked_rows()}
        shown = {sibling: batch.teacher_prompts[row] for sibling, row in siblings.items() if sibling >= 0}
        if not shown:
            return None
        responses = [batch.responses[row] for row in shown]
        teacher = response_log_probs(self.teacher, list(shown.values()), responses)
        student = response_log_probs(self.model, [batch.prompts[row] for row in shown], responses)
        return teacher_gain(teacher, student, [batch.masks[row] for row in shown])

    def _importance(self, batch: Batch, old: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Truncated importance weights between trainer and sampler, token by token."""
        if batch.importance is not None:
            return batch.importance
        assert batch.rollout_log_probs is not None
        limit = self.config.algorithm.rollout_correction.rollout_is_threshold
        pairs = zip(old, batch.rollout_log_probs, strict=True)
        return [(trainer - sampler).exp().clamp(max=limit) for trainer, sampler in pairs]

    @torch.no_grad()
    def _ask_teacher(
        self,
        batch: Batch,
        data: TensorDict,
        logits: torch.Tensor,
        entropy: Sequence[torch.Tensor],
        old: Sequence[torch.Tensor],
        importance: Sequence[torch.Tensor],
    ) -> RoutedTokens:
        """What is known of routed rows; completes TOPK_IDS and TEACHER_LOG_PROBS of `data` for the loss."""
        srpo, rows = self.srpo, batch.plan.asked_rows()
        responses = [batch.responses[row] for row in rows]
        sequences = [torch.cat([batch.teacher_prompts[row], batch.responses[row]]) for row in rows]
        lengths = [len(response) for response in responses]
        fields = {"input_ids": jagged(sequences), "responses": jagged(responses)}
        if srpo.logit_loss and srpo.support == "student":
            ids = StudentTopK(srpo).collect(logits.detach(), data)[TOPK_IDS]
            fields[TOPK_IDS] = from_lengths(ids, torch.tensor(lengths))
        view = tu.get_tensordict(fields, {})
        found = TeacherTargets(srpo).collect(packed_logits(self.teacher, sequences), view)
        if srpo.logit_loss:
            ids = found[TOPK_IDS] if srpo.support == "teacher" else fields[TOPK_IDS].values()
            of_all = lengths_of(data["responses"]) * batch.plan.asked
            data[TOPK_IDS] = from_lengths(ids, of_all)
            data[TEACHER_LOG_PROBS] = from_lengths(found[TEACHER_LOG_PROBS], of_all)
        return RoutedTokens(
            rows,
            teacher_entropy=list(found[TEACHER_ENTROPY].split(lengths)),
            student_entropy=[entropy[row] for row in rows],
            teacher_log_probs=list(found[TEACHER_SAMPLED].split(lengths)),
            student_log_probs=[old[row] for row in rows],
            importance=[importance[row] for row in rows],
            contrast_log_probs=self._contrast(batch, rows) if srpo.contrast else None,
        )

    def _contrast(self, batch: Batch, rows: Sequence[int]) -> list[torch.Tensor]:
        """Log of the mean probability of each row's tokens over the further passes of the teacher."""
        found: dict[int, list[torch.Tensor]] = {row: [] for row in rows}
        for prompts in batch.passes:
            shown = [row for row in rows if row in prompts]
            if shown:
                answers = response_log_probs(
                    self.teacher, [prompts[row] for row in shown], [batch.responses[row] for row in shown]
                )
                for row, answer in zip(shown, answers, strict=True):
                    found[row].append(answer)
        return [mean_log_prob(of_row, like=batch.responses[row]) for row, of_row in found.items()]

    def _branch_norms(self, outputs: dict[str, torch.Tensor], data: TensorDict) -> dict[str, float]:
        """L2 norm of the gradient of each branch by itself, before clipping."""
        norms = {}
        for branch in ("grpo", "sdpo"):
            self.objective.branch = branch
            try:
                loss, _ = self.objective.on_outputs(outputs, data, None)
            finally:
                self.objective.branch = None
            gradients = torch.autograd.grad(loss, list(self.model.parameters()), retain_graph=True)
            norms[f"srpo/grad_norm/{branch}"] = float(torch.stack([g.square().sum() for g in gradients]).sum().sqrt())
        return norms


def packed_logits(model: PreTrainedModel, sequences: Sequence[torch.Tensor]) -> torch.Tensor:
    """(sum of lengths, V) logits. Padding stands on the right, where causal attention never sees it."""
    lengths = torch.tensor([len(row) for row in sequences])
    ids = torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True)
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    inside = torch.arange(ids.shape[1])[None] < lengths[:, None]
    return model.lm_head(hidden[inside])


def response_log_probs(
    model: PreTrainedModel, prompts: Sequence[torch.Tensor], responses: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Log-probs of the responses' tokens, (j,) each."""
    sequences = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]
    lengths = torch.tensor([len(response) for response in responses])
    positions = prediction_positions(jagged(sequences), lengths)
    scores = torch.log_softmax(packed_logits(model, sequences)[positions], dim=-1)
    return list(scores.gather(-1, torch.cat(list(responses))[:, None]).squeeze(-1).split(lengths.tolist()))


def _padded_later(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """A nested tensor that knows its longest row; padding one that does not gives rows as long as all together."""
    values = torch.cat(list(rows))
    lengths = [len(row) for row in rows]
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return torch.nested.nested_tensor_from_jagged(
        values, offsets=offsets, min_seqlen=min(lengths), max_seqlen=max(lengths)
    )


def gradient(twin: Twin, batch: Batch) -> dict[str, Any]:
    """Loss and gradient of one batch, nothing updated."""
    loss, *_ = twin.loss(batch)
    parameters = dict(twin.model.named_parameters())
    found = torch.autograd.grad(loss, list(parameters.values()))
    return {"loss": float(loss.detach()), "gradient": dict(zip(parameters, found, strict=True))}
