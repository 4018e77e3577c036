"""The trainer: registries, the step, and what is watched."""

from __future__ import annotations

from srpo_verl.verl_names.contract import Clause, accepts, clause, compares_only, says

_TRAINER = "verl.trainer.ppo.v1.trainer_base:PPOTrainer"
_STAGES = "training.watch.driver_watch: the stage's limit and name"
_ROUTING = "training.step.trainer"
_DURABLE = "training.durable.durable_trainer"
_VLLM = "verl.workers.rollout.vllm_rollout"
_ACTORS = "verl_names.driver: actors that are watched"

_REGISTRIES = (
    clause("verl.trainer.ppo.core_algos:ADV_ESTIMATOR_REGISTRY", "plugin: the check that verl has loaded it"),
    clause("verl.trainer.ppo.core_algos:POLICY_LOSS_REGISTRY", "plugin: the check that verl has loaded it"),
    clause("verl.trainer.ppo.core_algos:register_adv_est", "training.registered_losses", accepts("name_or_enum")),
    clause("verl.trainer.ppo.core_algos:register_policy_loss", "training.registered_losses", accepts("name")),
    clause("verl.trainer.ppo.v1.trainer_base:TRAINER_REGISTRY", "launch.preflight: which trainer modes there are"),
    clause("verl.trainer.ppo.v1.trainer_base:register_trainer", _ROUTING, accepts("name")),
)

_STEP = (
    clause(f"{_TRAINER}.__init__", _ROUTING, accepts("config"), says("self.trainer_mode = ")),
    clause(f"{_TRAINER}.init", _ROUTING, accepts(), says("self._setup()", "self.on_init_end()")),
    clause(
        f"{_TRAINER}._setup",
        f"{_ROUTING}; {_STAGES}; {_ACTORS}",
        accepts(),
        says(
            "self._init_dataloader()",
            "self._init_resource_pool_mgr()",
            "cls=self.role_worker_mapping[actor_role]",
            "self.actor_rollout_wg = ",
            "self.actor_rollout_wg.init_model()",
            "self.ref_policy_wg = ",
            "self.critic_wg = ",
            "self.reward_loop_manager = ",
            "self.llm_server_manager",
            "self._load_checkpoint()",
        ),
    ),
    clause(
        f"{_TRAINER}.fit",
        f"{_ROUTING}, {_DURABLE}: what a step ends with; {_ACTORS}",
        accepts("agent_loop_manager"),
        says(
            "self.agent_loop_manager = agent_loop_manager",
            "self.timing_raw = {}",
            "self._validate()",
            "self.on_train_begin()",
            "self.step(metrics, self.timing_raw)",
            "self._save_checkpoint()",
            "self.on_step_end()",
            "self._compute_metrics(batch, metrics, self.timing_raw, global_steps=self.global_steps, epoch=",
            "self.logger.log(data=metrics, step=self.global_steps)",
        ),
    ),
    clause(f"{_TRAINER}.step", _STAGES, says("self.prepare_step()", "self._step_once(")),
    clause(
        f"{_TRAINER}._step_once",
        f"{_ROUTING}: the order of a step; {_STAGES}",
        says(
            "self.replay_buffer.sample(",
            "self._balance_batch(batch, metrics=metrics)",
            "self._compute_old_log_prob(batch, metrics=metrics)",
            "self._compute_ref_log_prob(batch, metrics=metrics)",
            "self._compute_values(batch, metrics=metrics)",
            "self._compute_advantage(batch, metrics=metrics)",
            "self._update_critic(batch, metrics=metrics)",
            "self._update_actor(batch, metrics=metrics)",
        ),
    ),
    clause(f"{_TRAINER}.prepare_step", _STAGES, accepts()),
    clause(f"{_TRAINER}.on_train_begin", f"{_DURABLE}: random state of a resumed run", accepts()),
    clause(f"{_TRAINER}._validate", _STAGES, accepts()),
    clause(
        f"{_TRAINER}._val_metrics_update",
        f"{_ROUTING}: verdicts of a validation",
        accepts("data_sources", "sample_uids", "reward_extra_infos_dict", "sample_turns", "expected_acc_counts"),
    ),
    clause("verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync.on_init_end", _STAGES, accepts()),
    clause("verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync.on_step_end", _STAGES, accepts()),
    clause(f"{_TRAINER}._build_replay_buffer", _ROUTING, accepts()),
    clause(
        "verl.trainer.ppo.v1.replay_buffer:ReplayBuffer.sample",
        f"{_ROUTING}: the limit of generation",
        says("self._wait_for_next_poll("),
    ),
    clause(
        "verl.trainer.ppo.v1.replay_buffer:ReplayBuffer._wait_for_next_poll",
        "srpo.poll_interval",
        says("time.sleep(self.poll_interval)"),
    ),
    clause(
        f"{_TRAINER}._init_resource_pool_mgr",
        f"{_ROUTING}: our worker in place of verl's",
        accepts(),
        says("self.role_worker_mapping = {}", "ray.remote(ActorRolloutRefWorker)"),
    ),
    clause(f"{_TRAINER}._balance_batch", _ROUTING, accepts("batch", "metrics", "logging_prefix", "keep_minibatch")),
    clause(
        f"{_TRAINER}._compute_old_log_prob",
        f"{_ROUTING}: the student's top-K, entropy and old log-probs",
        accepts("batch", "metrics"),
        says("self.actor_rollout_wg.compute_log_prob(batch)", "data.select('old_log_probs', 'entropy')"),
    ),
    clause(f"{_TRAINER}._compute_ref_log_prob", _STAGES, accepts("batch", "metrics")),
    clause(f"{_TRAINER}._compute_values", _STAGES, accepts("batch", "metrics")),
    clause(
        f"{_TRAINER}._compute_advantage",
        f"{_ROUTING}: rewards and importance weights, written before ours",
        accepts("batch", "metrics"),
        says("'token_level_rewards'", "'rollout_is_weights'"),
    ),
    clause(f"{_TRAINER}._update_critic", _STAGES, accepts("batch", "metrics")),
    clause(
        f"{_TRAINER}._update_actor",
        f"{_ROUTING}: flags of the batch, names of metrics",
        accepts("batch", "metrics"),
        says(
            "batch.extra_info.update(extra_info)",
            "self.actor_rollout_wg.update_actor(batch)",
            "rename_dict(output['metrics'], 'actor/')",
            "ppo_mini_batch_size * self.config.actor_rollout_ref.rollout.n",
        ),
    ),
    # A trainer answers with verl's own name of the one beneath, whatever it is registered under.
    clause(
        _TRAINER,
        f"{_ROUTING}: trainer_mode, which answers with verl's own name",
        compares_only(
            "trainer_mode",
            "_build_replay_buffer: self.trainer_mode == 'sync'",
            "_init_dataloader: self.trainer_mode != 'sync'",
            "_load_checkpoint: self.trainer_mode != 'sync'",
            "_reissue_inflight_prompts: self.trainer_mode == 'sync'",
            "_save_checkpoint: self.trainer_mode != 'sync'",
            "_submit_batch_to_rollout: self.trainer_mode != 'sync'",
        ),
    ),
)

_WATCH = (
    clause(
        f"{_VLLM}.vllm_async_server:vLLMHttpServer.run_server",
        "training.watch.heartbeats: a server that has lost its engine",
        says("AsyncLLM.from_vllm_config(", "self.engine = engine_client"),
    ),
    clause("vllm.v1.engine.async_llm:AsyncLLM.errored", "training.watch.heartbeats: a server that has lost its engine"),
    clause("verl.workers.rollout.llm_server:LLMServerManager.get_replicas", _ACTORS, accepts()),
    clause(
        "verl.workers.rollout.llm_server:LLMServerManager._init_global_load_balancer",
        _ACTORS,
        says("self.global_load_balancer = "),
    ),
    clause("verl.workers.rollout.replica:RolloutReplica.__init__", _ACTORS, says("self.servers")),
    clause(
        "verl.experimental.reward_loop.reward_loop:RewardLoopManager.reward_loop_worker_handles", _ACTORS, accepts()
    ),
    clause("verl.single_controller.ray.base:RayWorkerGroup.workers", _ACTORS, accepts()),
    clause(
        f"{_TRAINER}._submit_batch_to_rollout",
        "training.watch.driver_watch: prompts that are waited for",
        says("'is_prompt': True, 'status': 'pending'"),
    ),
    clause("transfer_queue.interface:_TQ_STORAGE", _ACTORS),
    clause(
        "transfer_queue.interface:kv_list",
        "training.watch.rollout_failures, training.step.queue: keys and tags by partition",
        accepts("partition_id"),
        says("-> dict[str, dict[str, Any]]"),
    ),
    clause(
        "transfer_queue.interface:async_kv_put",
        "training.watch.rollout_failures",
        accepts("key", "partition_id", "tag"),
    ),
    clause("transfer_queue.interface:kv_clear", "training.watch.rollout_failures", accepts("keys", "partition_id")),
    clause(
        "transfer_queue.interface:kv_batch_get",
        "training.step.queue",
        accepts("keys", "partition_id", "select_fields"),
    ),
    clause("transfer_queue.interface:kv_batch_put", "training.step.queue", accepts("keys", "partition_id", "fields")),
    clause(
        "transfer_queue.interface:_init_from_existing",
        _ACTORS,
        says("ray.get_actor('TransferQueueController', namespace='transfer_queue')"),
    ),
    clause(
        "ray.actor",
        "training.watch.heartbeats: signs of life; verl_names.driver.undecorated",
        says("def __ray_call__(", "__ray_metadata__", "self.modified_class = modified_class"),
    ),
)

STEP: tuple[Clause, ...] = (
    *_REGISTRIES,
    *_STEP,
    *_WATCH,
)
