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

from dataclasses import dataclass
from typing import Any

import torch
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.utils.debug import marked_timer

from srpo_verl import variants
from srpo_verl.config import settings
from srpo_verl.core import TeacherPrompt
from srpo_verl.training.durable.durable_trainer import DurableTrainer
from srpo_verl.training.durable.run_record import write_run_record
from srpo_verl.training.fields import ROUTED, TOKEN_WEIGHTS, flags, jagged, require, row_sums
from srpo_verl.training.step.queue import entries, get_fields, put_fields
from srpo_verl.training.step.routing_plan import RoutingPlan, build_plan, rollout_of
from srpo_verl.training.step.step_metrics import bad_data_metrics, prompt_metrics, routing_metrics
from srpo_verl.training.step.step_signals import StepView, step_signals, variant_metrics
from srpo_verl.training.step.teacher_client import TeacherClient
from srpo_verl.training.step.teacher_gain import shown_siblings, teacher_gain
from srpo_verl.training.step.teacher_prompts import (
    LeftOut,
    TeacherPromptBuilder,
    dump_teacher_prompts,
    max_teacher_prompt_length,
)
from srpo_verl.training.watch.driver_watch import build_watchdog, named_failure, watched
from srpo_verl.training.watch.rollout_failures import take_failures
from srpo_verl.training.worker.objective import ANY_ROUTED, METRIC_SCALE
from srpo_verl.training.worker.worker import COLLECT_TOPK, MEASURE_BRANCHES, STEP, SRPOWorker
from srpo_verl.verl_names.driver import put_in_worker


@dataclass
class Step:
    """What the methods of a step hand on; rows in batch order.

    Attributes:
        plan: the routing, without the rows that no teacher prompt could be made for.
        scores: (n,) float32, the sum of each row's rewards.
        responses: (j,) ids per row.
        prompts: by routed row.
        routed_tokens: how many tokens are distilled, once the teacher has answered.
    """

    plan: RoutingPlan
    scores: torch.Tensor
    responses: list[torch.Tensor]
    prompts: dict[int, TeacherPrompt]
    routed_tokens: int = 0


@register_trainer("srpo")
@watched
class SRPOTrainer(DurableTrainer):
    """Synchronous trainer whose failed rollouts with a correct sibling are distilled.

    A subclass is registered with `srpo_verl.register.trainer`; `worker_class` is what it starts on the GPUs.
    """

    worker_class: type[SRPOWorker] = SRPOWorker
    this_step: Step  # `step` is verl's method

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        place = f"{cls.__module__}:{cls.__qualname__}"
        for name in variants.names("trainer"):
            if variants.get("trainer", name).function == place:
                register_trainer(name)(cls)

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
        put_in_worker(self.role_worker_mapping, self.worker_class)

    def _setup(self):
        write_run_record(self.config)
        super()._setup()
        self.prompt_builder = TeacherPromptBuilder(
            tokenizer=self.tokenizer,
            srpo=self.srpo,
            max_length=max_teacher_prompt_length(self.config, self.srpo),
            chat_template_kwargs=self.config.data.get("apply_chat_template_kwargs", {}),
        )
        self.columns = sorted({c for name in self.srpo.providers for c in variants.get("provider", name).columns})

    # ---- route -----------------------------------------------------------------------------------------------

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, *args: Any, **kwargs: Any) -> KVBatchMeta:
        batch = super()._balance_batch(batch, metrics, *args, **kwargs)
        with marked_timer("srpo_route", self.timing_raw):
            self._route(batch, metrics)
        return batch

    def _route(self, batch: KVBatchMeta, metrics: dict) -> None:
        names = ["rm_scores", "responses", "response_mask", "extra_fields"]
        data = get_fields(batch, [*names, *self.columns])
        require(data, [*names, *self.columns])
        scores, responses = row_sums(data["rm_scores"]), list(data["responses"].unbind())
        masks, extra = data["response_mask"].unbind(), list(data["extra_fields"])
        special = torch.tensor(self.tokenizer.all_special_ids)
        columns = {name: list(data[name]) for name in self.columns}
        rows = enumerate(zip(batch.keys, batch.tags, scores.tolist(), responses, masks, extra, strict=True))
        rollouts = [
            rollout_of(*row, special_ids=special, columns={name: column[n] for name, column in columns.items()})
            for n, row in rows
        ]
        plan = build_plan(rollouts, self.srpo)
        metrics["srpo/queue_entries"] = float(entries())
        metrics.update(bad_data_metrics(plan, take_failures(), getattr(self.train_dataset, "left_out", 0)))
        plan, prompts, left_out = self._teacher_prompts(batch, plan, responses)
        self.this_step = Step(plan, scores, responses, prompts)
        metrics.update(routing_metrics(plan))
        metrics.update(prompt_metrics(list(prompts.values()), left_out))

    def _teacher_prompts(
        self, batch: KVBatchMeta, plan: RoutingPlan, responses: list[torch.Tensor]
    ) -> tuple[RoutingPlan, dict[int, TeacherPrompt], LeftOut]:
        rows = plan.routed_rows()
        if not rows:
            return plan, {}, LeftOut()
        raw = get_fields(batch.select_keys([batch.keys[row] for row in rows]), ["raw_prompt"])["raw_prompt"]
        messages = dict(zip(rows, list(raw), strict=True))
        siblings = {int(plan.routing.demonstration[row]) for row in rows} - {-1}
        plan, prompts, left_out = self.prompt_builder.build(plan, messages, {row: responses[row] for row in siblings})
        if self.srpo.dump_dir and self.global_steps % self.srpo.dump_freq == 0:
            ids = {row: responses[row].tolist() for row in prompts}
            dump_teacher_prompts(self.srpo.dump_dir, self.global_steps, plan, prompts, ids, self.tokenizer)
        return plan, prompts, left_out

    # ---- student's top-K -------------------------------------------------------------------------------------

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        routed = self.this_step.plan.routed
        put_fields(batch, {ROUTED: flags(routed)})
        wants_ids = self.srpo.logit_loss and self.srpo.support == "student"
        batch.extra_info[COLLECT_TOPK] = wants_ids and bool(routed.any())
        return super()._compute_old_log_prob(batch, metrics)

    # ---- teacher targets, advantages, weights ----------------------------------------------------------------

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        # verl's advantages are overwritten below; its rejection and importance weights of the rollouts are used.
        batch = super()._compute_advantage(batch, metrics)
        step, in_reward = self.this_step, bool(self.config.algorithm.use_kl_in_reward)
        names = ["response_mask", *(["token_level_rewards"] if in_reward else [])]
        data = get_fields(batch, names)
        require(data, names)
        masks = [mask.float() for mask in data["response_mask"].unbind()]
        tokens = None
        if step.prompts:
            with marked_timer("srpo_teacher", self.timing_raw):
                corrected = bool(self.config.algorithm.rollout_correction.rollout_is)
                tokens = self._teacher().ask(batch, step.prompts, step.responses, importance=corrected)
            if self._is_due(self.srpo.teacher_gain_freq):
                with marked_timer("srpo_teacher_gain", self.timing_raw):
                    metrics.update(self._teacher_gain(batch, masks))
        signals = step_signals(
            step.plan,
            self.srpo,
            rewards=row_sums(data["token_level_rewards"]) if in_reward else step.scores,
            masks=masks,
            normalize_by_std=self.config.algorithm.norm_adv_by_std_in_grpo,
            tokens=tokens,
        )
        step.routed_tokens = signals.routed_tokens
        fields = {"advantages": jagged(signals.advantages), "returns": jagged(signals.advantages)}
        if tokens is not None:
            fields[TOKEN_WEIGHTS] = jagged(signals.weights)
        # After the fields are copies of their own: a metric only looks, whatever it does.
        view = StepView(step.plan, step.responses, masks, tokens, signals, self.tokenizer.decode)
        metrics.update(signals.metrics | variant_metrics(view, self.srpo))
        return put_fields(batch, fields)

    def _teacher(self) -> TeacherClient:
        rollout, own = self.config.actor_rollout_ref.rollout, self.srpo.teacher.max_token_len_per_gpu
        return TeacherClient(
            srpo=self.srpo,
            workers=self.actor_rollout_wg,
            temperature=rollout.temperature,
            max_token_len_per_gpu=own or rollout.log_prob_max_token_len_per_gpu,
            filler_id=self.tokenizer.eos_token_id,
        )

    def _teacher_gain(self, batch: KVBatchMeta, masks: list[torch.Tensor]) -> dict[str, float]:
        """`srpo/teacher_gain`: one more pass of the teacher, over the siblings that are shown to it whole."""
        shown = shown_siblings(self.this_step.plan, self.this_step.prompts)
        if not shown:
            return {}
        answers = self._teacher().log_probs_of_shown(batch, shown, self.this_step.responses)
        gain = teacher_gain(*answers, [masks[row] for row in shown])
        return {} if gain is None else {"srpo/teacher_gain": gain}

    # ---- update ----------------------------------------------------------------------------------------------

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        logit_loss = self.srpo.logit_loss and bool(self.this_step.prompts)
        batch.extra_info |= {ANY_ROUTED: logit_loss, STEP: self.global_steps}
        if logit_loss:
            batch.extra_info[METRIC_SCALE] = self._mini_batches(len(batch)) / max(self.this_step.routed_tokens, 1)
            batch.extra_info[MEASURE_BRANCHES] = self._is_due(self.srpo.grad_norm_freq)
        batch = super()._update_actor(batch, metrics)
        for key in [key for key in metrics if key.startswith("actor/srpo/")]:
            metrics[key.removeprefix("actor/")] = metrics.pop(key)
        if logit_loss and "srpo/sdpo_loss" not in metrics:
            raise RuntimeError(
                f"{len(self.this_step.prompts)} rollouts are routed to the teacher, but the update has no loss on them "
                "(srpo/sdpo_loss): the workers do not run SRPO's objective, and training would go on as GRPO"
            )
        return batch

    def _is_due(self, frequency: int) -> bool:
        """Whether something that is measured every so many steps (0: never) is measured in this one."""
        return frequency > 0 and self.global_steps % frequency == 0

    def _mini_batches(self, rows: int) -> int:
        actor = self.config.actor_rollout_ref.actor
        return actor.ppo_epochs * rows // (actor.ppo_mini_batch_size * self.config.actor_rollout_ref.rollout.n)
