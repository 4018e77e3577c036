"""The SRPO step over any of verl's trainers, and the synchronous one (`trainer.v1.trainer_mode: srpo`).

    sample -> balance -> old_log_prob -> [ref] -> advantage -> update_actor
                 |            |                       |             |
               route       student's top-K       zero on routed   routed logit loss,
                           ids of routed rows    rows; teacher    then EMA
                                                 targets, weights

Each override calls verl's method and adds SRPO's part before or after it. What the algorithm decides is in
`srpo_verl.core` and `routing_plan`; here is only the traffic with workers and TransferQueue.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.debug import marked_timer

from srpo_verl import variants
from srpo_verl.config import settings
from srpo_verl.core import TeacherPrompt, check_conversation_template, turn_numbers
from srpo_verl.training.durable.durable_trainer import DurableTrainer
from srpo_verl.training.durable.guards import TrainingStoppedError
from srpo_verl.training.durable.run_lease import StopRequests, forget_token, take_run_folder
from srpo_verl.training.durable.run_record import write_run_record
from srpo_verl.training.durable.run_states import next_states, question_id
from srpo_verl.training.fields import ROUTED, TOKEN_WEIGHTS, TOOLS, TURNS, flags, jagged, require, row_sums
from srpo_verl.training.rollout.tool_schemas import has_tools
from srpo_verl.training.step.first_verdicts import FirstVerdicts
from srpo_verl.training.step.look_at_step import look_at_step
from srpo_verl.training.step.queue import entries, get_fields, put_fields
from srpo_verl.training.step.routing_plan import RoutingPlan, build_plan, rollout_of
from srpo_verl.training.step.step_dump import dump_step
from srpo_verl.training.step.step_metrics import bad_data_metrics, prompt_metrics, routing_metrics, tool_metrics
from srpo_verl.training.step.step_signals import StepView, step_signals, variant_metrics
from srpo_verl.training.step.teacher_client import TeacherClient
from srpo_verl.training.step.teacher_gain import shown_siblings, teacher_gain
from srpo_verl.training.step.teacher_prompts import (
    LeftOut,
    TeacherPromptBuilder,
    dump_teacher_prompts,
    max_teacher_prompt_length,
)
from srpo_verl.training.trainer_mode import SYNC
from srpo_verl.training.watch.driver_watch import build_watchdog, end_process, named_failure, newest_checkpoint, watched
from srpo_verl.training.watch.rollout_failures import take_failures
from srpo_verl.training.worker.objective import ANY_ROUTED, DENOMINATOR_SCALE, METRIC_SCALE
from srpo_verl.training.worker.worker import COLLECT_TOPK, MEASURE_BRANCHES, MOVE_TEACHER, STEP, SRPOWorker
from srpo_verl.verl_names.driver import put_in_worker


@dataclass
class Step:
    """What the methods of a step hand on; rows in batch order.

    Attributes:
        plan: the routing, without the rows that no teacher prompt could be made for.
        scores: (n,) float32, the sum of each row's rewards.
        responses: (j,) ids per row.
        prompts: by row that the teacher is asked about.
        turns: (j,) per row, which turn of the model's each token is of.
        passes: as prompts, of each further pass of the teacher, which shows it a sibling of the contrast.
        routed_tokens: how many tokens are distilled, once the teacher has answered.
        denominator_scale: what the divergence is multiplied by for another denominator than all response tokens.
        left_out: rows that no teacher prompt could be made for.
    """

    plan: RoutingPlan
    scores: torch.Tensor
    responses: list[torch.Tensor]
    prompts: dict[int, TeacherPrompt]
    turns: list[torch.Tensor]
    passes: list[dict[int, TeacherPrompt]] = field(default_factory=list)
    routed_tokens: int = 0
    denominator_scale: float = 1.0
    left_out: LeftOut = field(default_factory=LeftOut)


class SRPOMixin(DurableTrainer):
    """Failed rollouts with a correct sibling are distilled. Stands before one of verl's trainers among the bases.

    A subclass with such a trainer is registered with `srpo_verl.register.trainer`.

    Attributes:
        verl_mode: verl's own name of that trainer, by which verl decides on buffer, refill and checkpoints.
        worker_class: what is started on the GPUs.
    """

    verl_mode: ClassVar[str]
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
        return self.verl_mode

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
            self._take_folder()
            try:
                super().init()
            except BaseException:
                self.lease.release("failed before it trained")
                raise

    def _take_folder(self) -> None:
        """From here to its end this process writes in the run's folder, and no other."""
        self.lease = take_run_folder(self.config, self.srpo)
        forget_token(self.config)
        self.lease.keep(lambda why: end_process([why], by="the run was ended:"))
        self.requests = StopRequests(self.lease, self._end_as_asked)
        self.requests.listen()

    def _end_as_asked(self, sentence: str) -> None:
        report = [sentence, newest_checkpoint(self)]
        self.lease.release(f"stopped: {sentence}", last=True)
        end_process(report, by="the run was ended:")

    def fit(self, agent_loop_manager):
        how = "failed"
        try:
            with named_failure(self):
                super().fit(agent_loop_manager)
            how = "ended"
        except TrainingStoppedError as error:
            how = f"stopped: {error}"
            raise
        finally:
            self.requests.close()
            self.lease.release(how)
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
        if self.srpo.distils and self.srpo.teacher.demonstration == "conversation":
            check_conversation_template(self.tokenizer, self.prompt_builder.chat_template_kwargs)
        self.first_verdicts = FirstVerdicts(self.srpo)
        self.columns = self.srpo.column_names()

    def _val_metrics_update(self, data_sources, sample_uids, reward_extra_infos_dict, *args: Any, **kwargs: Any):
        self.first_verdicts.look_at_validation([str(name) for name in data_sources], reward_extra_infos_dict)
        return super()._val_metrics_update(data_sources, sample_uids, reward_extra_infos_dict, *args, **kwargs)

    # ---- route -----------------------------------------------------------------------------------------------

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, *args: Any, **kwargs: Any) -> KVBatchMeta:
        batch = super()._balance_batch(batch, metrics, *args, **kwargs)
        with marked_timer("srpo_route", self.timing_raw):
            self._route(batch, metrics)
        return batch

    def _route(self, batch: KVBatchMeta, metrics: dict) -> None:
        names = ["rm_scores", "responses", "response_mask", "extra_fields", *self.columns]
        names += ["raw_prompt"] if self.srpo.states and "raw_prompt" not in self.columns else []
        data = get_fields(batch, names)
        require(data, names)
        scores, responses = row_sums(data["rm_scores"]), list(data["responses"].unbind())
        masks, extra = data["response_mask"].unbind(), list(data["extra_fields"])
        special = torch.tensor(self.tokenizer.all_special_ids)
        columns = {name: list(data[name]) for name in self.columns}
        texts: list[str | None] = [None] * len(responses)
        if self.srpo.reads_responses:
            # The model's own tokens: what a tool answered is no part of what was answered.
            own = [ids[mask.bool()] for ids, mask in zip(responses, masks, strict=True)]
            texts = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in own]
        questions = [question_id(prompt) for prompt in data["raw_prompt"]] if self.srpo.states else [""] * len(texts)
        rows = enumerate(zip(batch.keys, batch.tags, scores.tolist(), responses, masks, extra, strict=True))
        rollouts = [
            rollout_of(
                *row,
                special_ids=special,
                columns={name: column[n] for name, column in columns.items()},
                text=texts[n],
                question=questions[n],
            )
            for n, row in rows
        ]
        plan = build_plan(
            rollouts,
            self.srpo,
            group_size=self.config.actor_rollout_ref.rollout.n,
            step=self.global_steps,
            states=self.states,
        )
        self.states = next_states(self.states, plan.routing.seen, self.srpo)
        self.first_verdicts.look(plan)
        metrics["srpo/queue_entries"] = float(entries())
        metrics.update(bad_data_metrics(plan, take_failures(), getattr(self.train_dataset, "left_out", 0)))
        plan, prompts, passes, left_out = self._teacher_prompts(batch, plan, responses)
        # Before verl rejects tokens, which would part a turn.
        turns = [turn_numbers(mask) for mask in masks]
        self.this_step = Step(plan, scores, responses, prompts, turns, passes, left_out=left_out)
        metrics.update(routing_metrics(plan) | tool_metrics(plan))
        metrics.update(prompt_metrics(list(prompts.values()), left_out))

    def _teacher_prompts(
        self, batch: KVBatchMeta, plan: RoutingPlan, responses: list[torch.Tensor]
    ) -> tuple[RoutingPlan, dict[int, TeacherPrompt], list[dict[int, TeacherPrompt]], LeftOut]:
        rows = plan.asked_rows()
        if not rows:
            return plan, {}, [], LeftOut()
        multi_turn = self.config.actor_rollout_ref.rollout.multi_turn
        names = ["raw_prompt", *([TOOLS] if has_tools(multi_turn) else [])]
        raw = get_fields(batch.select_keys([batch.keys[row] for row in rows]), names)
        by_row = {name: dict(zip(rows, list(raw[name]), strict=True)) for name in names}
        shown = set(plan.routing.demonstration[rows].tolist()) | set(plan.routing.contrast[rows].flatten().tolist())
        siblings = sorted(shown - {-1})
        answers = {row: responses[row] for row in siblings}
        given = (by_row["raw_prompt"], answers, by_row.get(TOOLS), self._turns(batch, siblings))
        plan, prompts, left_out = self.prompt_builder.build(plan, *given)
        passes, unmade = self.prompt_builder.contrast(plan, *given)
        left_out = replace(left_out, contrast=unmade)
        if self.srpo.dump_dir and self.global_steps % self.srpo.dump_freq == 0:
            ids = {row: responses[row].tolist() for row in prompts}
            folder, later = self.srpo.dump_dir, self.local_trigger_step > 0
            dump_teacher_prompts(folder, self.global_steps, plan, prompts, ids, self.tokenizer, append=later)
        return plan, prompts, passes, left_out

    def _turns(self, batch: KVBatchMeta, rows: list[int]) -> dict[int, str]:
        """The turns of the sessions that are shown, as JSON."""
        if not rows:
            return {}
        data = get_fields(batch.select_keys([batch.keys[row] for row in rows]), [TURNS])
        require(data, [TURNS])
        return dict(zip(rows, list(data[TURNS]), strict=True))

    # ---- student's top-K -------------------------------------------------------------------------------------

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        asked = self.this_step.plan.asked
        put_fields(batch, {ROUTED: flags(asked)})
        wants_ids = self.srpo.logit_loss and self.srpo.support == "student"
        batch.extra_info[COLLECT_TOPK] = wants_ids and bool(asked.any())
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
                if self.srpo.contrast:
                    contrast = self._teacher().contrast(batch, step.passes, tokens.rows, step.responses)
                    tokens = replace(tokens, contrast_log_probs=contrast)
            if self._is_due(self.srpo.teacher_gain_freq):
                with marked_timer("srpo_teacher_gain", self.timing_raw):
                    metrics.update(self._teacher_gain(batch, masks))
        rewards = row_sums(data["token_level_rewards"]) if in_reward else step.scores
        signals = step_signals(
            step.plan,
            self.srpo,
            rewards=rewards,
            masks=masks,
            normalize_by_std=self.config.algorithm.norm_adv_by_std_in_grpo,
            tokens=tokens,
            turns=step.turns,
        )
        step.routed_tokens, step.denominator_scale = signals.routed_tokens, signals.denominator_scale
        fields = {"advantages": jagged(signals.advantages), "returns": jagged(signals.advantages)}
        if tokens is not None:
            fields[TOKEN_WEIGHTS] = jagged(signals.weights)
        # After the fields are copies of their own: a metric only looks, whatever it does.
        view = StepView(step.plan, step.responses, masks, tokens, signals, self.tokenizer.decode)
        metrics.update(signals.metrics | variant_metrics(view, self.srpo))
        batch = put_fields(batch, fields)
        # In the modes with several batches a step, of the first.
        if self.srpo.inspect_dir and self._is_due(self.srpo.inspect_freq) and self.local_trigger_step == 0:
            with marked_timer("srpo_inspect", self.timing_raw):
                self._dump(self.srpo.inspect_dir, batch, view, rewards)
        return batch

    def _dump(self, folder: str, batch: KVBatchMeta, view: StepView, rewards: torch.Tensor) -> None:
        """The step into the folder, as `srpo inspect` shows it."""
        step, by_std = self.this_step, self.config.algorithm.norm_adv_by_std_in_grpo
        looked = look_at_step(
            batch,
            view,
            srpo=self.srpo,
            scalar=step.plan.advantages(rewards, self.srpo, normalize_by_std=by_std),
            prompts=step.prompts,
            left_out=step.left_out,
            workers=self.actor_rollout_wg,
            rollout=self.config.actor_rollout_ref.rollout,
        )
        dump_step(folder, view, looked, self.srpo)

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
        # Once per batch, whether verl cuts it into mini-batches in the worker or samples one after the other.
        last = self.local_trigger_step + 1 == self.parameter_sync_step
        batch.extra_info |= {ANY_ROUTED: logit_loss, STEP: self.global_steps, MOVE_TEACHER: last}
        if logit_loss:
            # verl's reductions give the mean over mini-batches, and over epochs, of sums over the tokens of one.
            batch.extra_info[METRIC_SCALE] = self._mini_batches(len(batch)) / max(self.this_step.routed_tokens, 1)
            batch.extra_info[DENOMINATOR_SCALE] = self.this_step.denominator_scale
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
        rollouts = self.config.actor_rollout_ref.actor.ppo_mini_batch_size * self.config.actor_rollout_ref.rollout.n
        return rows // rollouts


@register_trainer("srpo")
@watched
class SRPOTrainer(SRPOMixin, PPOTrainerSync):
    """Every rollout of a batch is sampled from the weights that are then updated."""

    verl_mode = SYNC


# In a process that begins with this module, the plugin's import of them comes too early (`plugin._register_trainers`).
importlib.import_module("srpo_verl.training.step.async_trainers")
