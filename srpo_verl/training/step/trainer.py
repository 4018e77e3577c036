"""The SRPO step on verl's synchronous trainer (`trainer.v1.trainer_mode: srpo`).

    sample -> balance -> old_log_prob -> [ref] -> advantage -> update_actor
                 |            |                       |             |
               route       student's top-K       zero on routed   routed logit loss,
                           ids of routed rows    rows; teacher    then EMA
                                                 targets, weights

Each override calls verl's method and adds SRPO's part before or after it. What the algorithm decides is in
`srpo_verl.core` and `routing_plan`; here is only the traffic with workers and TransferQueue.
"""

from __future__ import annotations

from typing import Any

import ray
import torch
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.utils.debug import marked_timer

from srpo_verl.config import settings
from srpo_verl.core import TeacherPrompt
from srpo_verl.training.durable.durable_trainer import DurableTrainer
from srpo_verl.training.durable.run_record import write_run_record
from srpo_verl.training.fields import ROUTED, TOKEN_WEIGHTS, flags, jagged, require, row_sums
from srpo_verl.training.step.queue import entries, get_fields, put_fields
from srpo_verl.training.step.routing_plan import RoutingPlan, build_plan, rollout_of
from srpo_verl.training.step.step_metrics import bad_data_metrics, prompt_metrics, routing_metrics, token_metrics
from srpo_verl.training.step.teacher_pass import TeacherPass, measure_gain, run_teacher
from srpo_verl.training.step.teacher_prompts import (
    LeftOut,
    TeacherPromptBuilder,
    dump_teacher_prompts,
    max_teacher_prompt_length,
)
from srpo_verl.training.step.token_weights import mixed_advantages, token_weights
from srpo_verl.training.watch.driver_watch import build_watchdog, named_failure, watched
from srpo_verl.training.watch.rollout_failures import take_failures
from srpo_verl.training.worker.objective import METRIC_SCALE
from srpo_verl.training.worker.worker import ANY_ROUTED, COLLECT_TOPK, MEASURE_BRANCHES, SRPOWorker


@register_trainer("srpo")
@watched
class SRPOTrainer(DurableTrainer):
    """Synchronous trainer whose failed rollouts with a correct sibling are distilled."""

    plan: RoutingPlan
    # In batch order: (n,) score of each row, and its response ids.
    scores: torch.Tensor
    responses: list[torch.Tensor]
    prompts: dict[int, TeacherPrompt]
    teacher: TeacherPass | None

    def __init__(self, config):
        self.srpo = settings(config.srpo)
        self.watchdog = build_watchdog(self)
        super().__init__(config)

    @property
    def trainer_mode(self) -> str:
        # verl asks for "sync" by name where it decides on replay buffer, refill and checkpoints.
        return "sync"

    @trainer_mode.setter
    def trainer_mode(self, name: str) -> None:
        """verl's constructor assigns the registered name; the answer above does not depend on it."""

    def _build_replay_buffer(self):
        buffer = super()._build_replay_buffer()
        buffer.poll_interval = self.srpo.poll_interval
        # verl polls without end for prompts that may never come.
        buffer.sample = self.watchdog.in_stage("gen", buffer.sample)
        return buffer

    def init(self):
        self.watchdog.start()
        with named_failure(self):
            super().init()

    def fit(self, agent_loop_manager):
        with named_failure(self):
            super().fit(agent_loop_manager)
        self.watchdog.stop()

    def _init_resource_pool_mgr(self):
        super()._init_resource_pool_mgr()
        for role in (Role.ActorRollout, Role.ActorRolloutRef):
            if role in self.role_worker_mapping:
                self.role_worker_mapping[role] = ray.remote(SRPOWorker)

    def _setup(self):
        write_run_record(self.config)
        super()._setup()
        self.prompt_builder = TeacherPromptBuilder(
            tokenizer=self.tokenizer,
            srpo=self.srpo,
            max_length=max_teacher_prompt_length(self.config, self.srpo),
            chat_template_kwargs=self.config.data.get("apply_chat_template_kwargs", {}),
        )

    # ---- route -----------------------------------------------------------------------------------------------

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, *args: Any, **kwargs: Any) -> KVBatchMeta:
        batch = super()._balance_batch(batch, metrics, *args, **kwargs)
        with marked_timer("srpo_route", self.timing_raw):
            self._route(batch, metrics)
        return batch

    def _route(self, batch: KVBatchMeta, metrics: dict) -> None:
        data = get_fields(batch, ["rm_scores", "responses", "response_mask", "extra_fields"])
        self.scores, self.responses = row_sums(data["rm_scores"]), list(data["responses"].unbind())
        scores, masks, extra = self.scores.tolist(), data["response_mask"].unbind(), list(data["extra_fields"])
        special = torch.tensor(self.tokenizer.all_special_ids)
        rows = zip(batch.keys, batch.tags, scores, self.responses, masks, extra, strict=True)
        plan = build_plan([rollout_of(*row, special_ids=special) for row in rows], self.srpo)
        metrics["srpo/queue_entries"] = float(entries())
        metrics.update(bad_data_metrics(plan, take_failures(), getattr(self.train_dataset, "left_out", 0)))
        self.plan, self.prompts, left_out = self._teacher_prompts(batch, plan)
        metrics.update(routing_metrics(self.plan))
        metrics.update(prompt_metrics(list(self.prompts.values()), left_out))

    def _teacher_prompts(
        self, batch: KVBatchMeta, plan: RoutingPlan
    ) -> tuple[RoutingPlan, dict[int, TeacherPrompt], LeftOut]:
        rows = plan.routed_rows()
        if not rows:
            return plan, {}, LeftOut()
        raw = get_fields(batch.select_keys([batch.keys[row] for row in rows]), ["raw_prompt"])["raw_prompt"]
        messages = dict(zip(rows, list(raw), strict=True))
        siblings = {int(plan.routing.demonstration[row]) for row in rows} - {-1}
        plan, prompts, left_out = self.prompt_builder.build(
            plan, messages, {row: self.responses[row] for row in siblings}
        )
        if self.srpo.dump_dir and self.global_steps % self.srpo.dump_freq == 0:
            ids = {row: self.responses[row].tolist() for row in prompts}
            dump_teacher_prompts(self.srpo.dump_dir, self.global_steps, plan, prompts, ids, self.tokenizer)
        return plan, prompts, left_out

    # ---- student's top-K -------------------------------------------------------------------------------------

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        routed = self.plan.routed
        put_fields(batch, {ROUTED: flags(routed)})
        wants_ids = self.srpo.logit_loss and self.srpo.support == "student"
        batch.extra_info[COLLECT_TOPK] = wants_ids and bool(routed.any())
        return super()._compute_old_log_prob(batch, metrics)

    # ---- advantages, teacher targets, weights ----------------------------------------------------------------

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch = super()._compute_advantage(batch, metrics)
        names = ["response_mask"]
        if self.config.algorithm.use_kl_in_reward:
            names.append("token_level_rewards")
        if self.srpo.advantage_mix > 0:
            names.append("old_log_probs")
        data = get_fields(batch, names)
        require(data, names)
        masks = [mask.float() for mask in data["response_mask"].unbind()]

        self.teacher = None
        corrected = bool(self.config.algorithm.rollout_correction.rollout_is)
        if self.plan.routed.any():
            also = ["entropy", *(["rollout_is_weights"] if corrected else [])]
            with marked_timer("srpo_teacher", self.timing_raw):
                self.teacher, routed = run_teacher(self, batch, self.responses, also)
            if self._is_due(self.srpo.teacher_gain_freq):
                with marked_timer("srpo_teacher_gain", self.timing_raw):
                    metrics.update(measure_gain(self, batch, self.responses, masks))

        scalar = self.plan.policy_gradient_advantages(
            row_sums(data["token_level_rewards"]) if "token_level_rewards" in names else self.scores,
            self.srpo,
            normalize_by_std=self.config.algorithm.norm_adv_by_std_in_grpo,
        )
        advantages = [value * mask for value, mask in zip(scalar, masks, strict=True)]
        if self.srpo.advantage_mix > 0:
            old_log_probs = data["old_log_probs"].unbind()
            advantages = mixed_advantages(advantages, masks, old_log_probs, self.teacher, mix=self.srpo.advantage_mix)
        fields = {"advantages": jagged(advantages), "returns": jagged(advantages)}

        if self.teacher is not None:
            rows, importance = self.teacher.rows, None
            if corrected:
                importance = dict(zip(rows, routed["rollout_is_weights"].unbind(), strict=True))
            weights, per_token = token_weights(self.teacher, masks, importance, beta=self.srpo.beta)
            fields[TOKEN_WEIGHTS] = jagged(weights)
            valid, student = torch.cat([masks[row] for row in rows]) > 0, routed["entropy"].values()
            metrics.update(token_metrics(self.teacher.flat_entropy[valid], student[valid], per_token[valid]))
        return put_fields(batch, fields)

    # ---- update ----------------------------------------------------------------------------------------------

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        logit_loss = self.srpo.logit_loss and self.teacher is not None
        batch.extra_info[ANY_ROUTED] = logit_loss
        if logit_loss:
            batch.extra_info[METRIC_SCALE] = self._mini_batches(len(batch)) / max(metrics["srpo/routed_tokens"], 1.0)
            batch.extra_info[MEASURE_BRANCHES] = self._is_due(self.srpo.grad_norm_freq)
        batch = super()._update_actor(batch, metrics)
        for key in [key for key in metrics if key.startswith("actor/srpo/")]:
            metrics[key.removeprefix("actor/")] = metrics.pop(key)
        return batch

    def _is_due(self, frequency: int) -> bool:
        """Whether something that is measured every so many steps (0: never) is measured in this one."""
        return frequency > 0 and self.global_steps % frequency == 0

    def _mini_batches(self, rows: int) -> int:
        actor = self.config.actor_rollout_ref.actor
        return actor.ppo_epochs * rows // (actor.ppo_mini_batch_size * self.config.actor_rollout_ref.rollout.n)
