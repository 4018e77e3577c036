"""The asynchronous trainers: buffer, interruptions, what is in flight, and the worker that keeps pi_old."""

from __future__ import annotations

from srpo_verl.verl_names.contract import Clause, accepts, clause, says

_TRAINER = "verl.trainer.ppo.v1.trainer_base:PPOTrainer"
_COLOCATE = "verl.trainer.ppo.v1.trainer_colocate_async:PPOTrainerColocateAsync"
_SEPARATE = "verl.trainer.ppo.v1.trainer_separate_async:PPOTrainerSeparateAsync"
_BUFFER = "verl.trainer.ppo.v1.replay_buffer"
_WORKER = "verl.experimental.separation.engine_workers:DetachActorWorker"
_STAGES = "training.watch.driver_watch: the stage's limit and name"
_OURS = "training.step.async_trainers"
_GROUPS = "training.step.group_buffer: groups that lost rollouts"
_IN_FLIGHT = "training.durable.in_flight"
_OLD = f"{_OURS}: old log-probs, and the student's ids, of the weights before the batch"

ASYNCHRONOUS: tuple[Clause, ...] = (
    clause(
        f"{_TRAINER}._build_replay_buffer",
        f"{_OURS}: our buffer in place of verl's",
        says("sampler_cls = ReplayBuffer if self.trainer_mode == 'sync' else ReplayBufferAsync"),
    ),
    clause(
        f"{_BUFFER}:ReplayBufferAsync._stale_terminal_keys",
        _GROUPS,
        accepts("global_steps", "partition_id"),
        says("self.finished_keys[partition_id]"),
    ),
    clause(
        f"{_BUFFER}:ReplayBufferAsync._terminal_eviction_reasons",
        _GROUPS,
        accepts("global_steps", "partition_id"),
        says("self._stale_terminal_keys(", "return (stale_uids, dapo_uids, set(self.failure_keys[partition_id]), "),
    ),
    clause(
        f"{_BUFFER}:ReplayBuffer._terminal_eviction_reasons",
        _GROUPS,
        accepts("global_steps", "partition_id"),
        says("if self.sync_refill_failed_groups:", "return (set(), dapo_uids, failed_uids, dapo_counts)"),
    ),
    clause(f"{_BUFFER}:ReplayBufferAsync.sample", _GROUPS, accepts("global_steps", "partition_id", "batch_size")),
    clause(
        f"{_TRAINER}.step",
        f"{_OURS}: the teacher moves once per batch; counts are summed over its mini-batches",
        accepts("metrics", "timing_raw"),
        says("self.local_trigger_step = trigger_idx", "range(self.parameter_sync_step)"),
    ),
    clause(f"{_TRAINER}._step_once", _OURS, accepts("metrics", "timing_raw", "sample_batch_size")),
    clause(f"{_TRAINER}._reissue_inflight_prompts", f"{_STAGES}; {_IN_FLIGHT}", accepts("partition_id")),
    clause(f"{_TRAINER}.on_step_begin", _STAGES, accepts()),
    clause(f"{_TRAINER}.on_validate_begin", _STAGES, accepts()),
    clause(f"{_TRAINER}.on_sample_end", _STAGES, accepts()),
    clause(
        f"{_TRAINER}._load_checkpoint",
        _IN_FLIGHT,
        says(
            "os.path.join(global_step_folder, 'transfer_queue')",
            "tq.load_checkpoint(tq_ckpt_path)",
            "self._restored_tq_prompt_count = ",
        ),
    ),
    clause(
        f"{_TRAINER}._save_checkpoint",
        _IN_FLIGHT,
        says("tq.save_checkpoint(os.path.join(local_global_step_folder, 'transfer_queue'), metadata="),
    ),
    clause("transfer_queue.interface:save_checkpoint", _IN_FLIGHT, accepts("checkpoint_dir", "metadata")),
    clause(
        "verl.trainer.ppo.v1.agent_loop_tq:AgentLoopWorkerTQ._agent_loop_postprocess",
        "training.step.staleness: versions of the weights that wrote a rollout",
        says("'min_global_steps': ", "'max_global_steps': "),
    ),
    clause(
        "verl.workers.rollout.llm_server:FullyAsyncLLMServerClient.generate",
        "training.step.async_trainers: what was generated before an interruption is kept, with its log-probs",
        says("final_output.token_ids.extend(output.token_ids)", "final_output.log_probs.extend(output.log_probs)"),
    ),
    clause(f"{_COLOCATE}.on_init_end", _STAGES, accepts()),
    clause(f"{_COLOCATE}.on_train_begin", f"{_OURS}: the first prompts in flight", accepts()),
    clause(
        f"{_COLOCATE}.on_sample_end",
        f"{_OURS}: nothing is sampled while weights change; {_STAGES}",
        accepts(),
        says("self.checkpoint_manager.abort_replicas()"),
    ),
    clause(
        f"{_COLOCATE}.on_step_end",
        _STAGES,
        accepts(),
        says(
            "self.checkpoint_manager.update_weights(self.global_steps)",
            "self.checkpoint_manager.resume_generation_replicas()",
        ),
    ),
    clause(
        f"{_SEPARATE}.__init__",
        "launch.trainer_checks: what it asserts",
        says(
            "train_batch_size == parameter_sync_step * ppo_mini_batch_size",
            "config.actor_rollout_ref.rollout.nnodes > 0",
            "config.actor_rollout_ref.rollout.n_gpus_per_node > 0",
            "config.actor_rollout_ref.rollout.checkpoint_engine.backend != 'naive'",
        ),
    ),
    clause(
        f"{_WORKER}._get_strategy_handlers",
        "training.worker.detached_worker: weights that rest on the host are copied",
        accepts(),
        says("(fsdp2_sharded_save_to_cpu, fsdp2_sharded_load_from_cpu)"),
    ),
    clause(
        "verl.utils.fsdp_utils:fsdp2_sharded_save_to_cpu",
        "training.worker.detached_worker: weights that rest on the host are copied",
        says("local_gpu_tensor.detach().cpu()", "return (cpu_sharded_state, global_spec)"),
    ),
    clause(
        f"{_SEPARATE}._init_resource_pool_mgr",
        f"{_OURS}: our worker in place of verl's",
        accepts(),
        says("ray.remote(DetachActorWorker)"),
    ),
    clause(
        f"{_SEPARATE}._setup",
        "verl_names.driver: actors that are watched",
        accepts(),
        says("self.standalone_server_manager", "self.standalone_checkpoint_manager"),
    ),
    clause(
        f"{_SEPARATE}._compute_old_log_prob",
        _OLD,
        accepts("batch", "metrics"),
        says(
            "self.actor_rollout_wg.restore_model_from_cpu(0)",
            "self.actor_rollout_wg.restore_model_from_cpu(self.local_trigger_step)",
        ),
    ),
    *(
        clause(f"{_SEPARATE}.{method}", _STAGES, accepts())
        for method in ("on_init_end", "on_train_begin", "on_validate_begin", "on_step_begin", "on_step_end")
    ),
    clause(f"{_SEPARATE}.prepare_step", _STAGES, accepts()),
    clause(f"{_SEPARATE}.on_sample_end", _STAGES, accepts()),
    *(
        clause(f"{_WORKER}.{method}", _OLD, accepts("n"))
        for method in ("save_model_to_cpu", "restore_model_from_cpu", "clear_cpu_model")
    ),
)
