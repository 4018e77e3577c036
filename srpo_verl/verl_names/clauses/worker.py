"""Workers and engines: logits, losses, rows that ranks share, adapters."""

from __future__ import annotations

from srpo_verl.verl_names.contract import Clause, accepts, clause, says

_WORKERS = "verl.workers.engine_workers"
_ENGINE = "verl.workers.engine.fsdp.transformer_impl"
_SPLIT = "training.worker.sequence_parallel: which tokens are whose"

_GPU = (
    clause(
        f"{_WORKERS}:ActorRolloutRefWorker.init_model",
        "training.worker.worker; verl_names.worker.policy_config",
        accepts(),
        says("partial(ppo_loss, config=actor_config)", "self.actor.set_loss_fn(self.loss_fn)", "self.rollout = "),
    ),
    clause(
        f"{_WORKERS}:ActorRolloutRefWorker.compute_ref_log_prob",
        "training.worker.worker: the reference's log-probs by our functions",
        accepts("data"),
        says("self.ref.infer_batch(data=data)"),
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
        "training.worker.logits_hook: a loss function that sees logits; training.worker.fused_head: put around it",
        accepts("micro_batch", "loss_function", "forward_only"),
        says(
            "micro_batch = micro_batch.to(get_device_id())",
            "self.prepare_model_inputs(micro_batch=micro_batch)",
            "raw_output = self.module(",
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
            "key='calculate_entropy'",
            "key='calculate_sum_pi_squared'",
            "logits_processor_func(student_logits=logits_rmpad.unsqueeze(0), data=micro_batch)",
        ),
    ),
    clause(
        f"{_ENGINE}:FSDPEngineWithLMHead.prepare_model_outputs",
        "training.worker.policy_outputs: log-probs that the engine leaves to us, of the same tokens and names",
        says(
            "model_output[k] = torch.nested.nested_tensor_from_jagged(v, cu_seqlens)",
            "model_output['log_probs'] = log_probs",
            "model_output['entropy'] = entropy",
            "if not distillation_only:",
        ),
    ),
    clause(
        f"{_ENGINE}:FSDPEngineWithLMHead.prepare_model_outputs",
        "training.worker.fused_head: answers in the place of logits",
        says(
            "logits_rmpad = output.logits.squeeze(0)",
            "_scale_logits_by_temperature(logits_rmpad, temperature_rmpad.unsqueeze(-1), ",
        ),
    ),
    clause(
        f"{_ENGINE}:_scale_logits_by_temperature",
        "training.worker.fused_head: the temperature that it takes back",
        says("return logits / temperature.clamp(min=1e-08).to(logits.dtype)"),
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

_SHARED_ROWS = (
    clause(
        f"{_ENGINE}:FSDPEngine._init_device_mesh",
        _SPLIT,
        says(
            "self.ulysses_parallel_group = None",
            "mesh_shape=(dp_size, self.ulysses_sequence_parallel_size)",
            "self.ulysses_parallel_group = self.ulysses_device_mesh['sp'].get_group()",
        ),
    ),
    clause(
        f"{_ENGINE}:FSDPEngine.is_mp_src_rank_with_outputs",
        "training.worker.sequence_parallel: the rank that answers",
        says("self.ulysses_device_mesh['sp'].get_local_rank() == 0"),
    ),
    clause(
        f"{_ENGINE}:FSDPEngineWithLMHead.prepare_model_inputs",
        _SPLIT,
        says(
            "key='distillation_use_topk'",
            "input_ids_rmpad_rolled = torch.roll(input_ids_rmpad, shifts=-1, dims=1)",
            "ulysses_pad_and_slice_inputs(input_ids_rmpad, position_ids_rmpad=position_ids_rmpad, "
            "sp_size=self.ulysses_sequence_parallel_size",
        ),
    ),
    clause(
        f"{_ENGINE}:FSDPEngine._gather_and_unpad_packed",
        "training.worker.objective: its values of all ranks, and the gradient's way back",
        says("gather_outputs_and_unpad(tensor, gather_dim=0, unpad_dim=0, padding_size=pad_size)"),
    ),
    clause(
        "verl.utils.ulysses:Gather.backward",
        "training.worker.objective: FSDP's mean over the ranks that share a row",
        says("grad_output * ctx.sp_world_size", "[ctx.sp_rank]"),
    ),
    clause(
        "verl.utils.ulysses:ulysses_pad",
        _SPLIT,
        says("(sp_size - total_seq_len % sp_size) % sp_size", "torch.nn.functional.pad(input_ids_rmpad, (0, pad_size)"),
    ),
    clause("verl.utils.ulysses:slice_input_tensor", _SPLIT, says("slice(sp_rank * parts, (sp_rank + 1) * parts)")),
    clause("verl.utils.ulysses:get_ulysses_sequence_parallel_group", _SPLIT, accepts()),
    clause(
        f"{_ENGINE}:EngineEvalModeCtx.__enter__",
        _SPLIT,
        says("set_ulysses_sequence_parallel_group(self.engine.ulysses_parallel_group)"),
    ),
    clause(
        f"{_ENGINE}:EngineTrainModeCtx.__enter__",
        _SPLIT,
        says("set_ulysses_sequence_parallel_group(self.engine.ulysses_parallel_group)"),
    ),
    clause(
        "verl.workers.engine.utils:prepare_micro_batches",
        "training.step.teacher_client: the budget of a row that is shared",
        says("max_token_len = max_token_len_per_gpu * sp_size"),
    ),
    clause(
        "verl.models.transformers.monkey_patch:apply_monkey_patch",
        "launch.sequence_parallel: attention that is split over ranks",
        says(
            "num_attention_heads % ulysses_sp_size == 0",
            "flash_attention._flash_attention_forward = _ulysses_flash_attention_forward",
        ),
    ),
)

_LORA = (
    clause(
        f"{_ENGINE}:FSDPEngine._build_lora_module",
        "training.worker.lora_weights: the adapter is A and B of linear layers, named default",
        accepts("module"),
        says("get_peft_model(module, LoraConfig(**lora_config))", "PeftModel.from_pretrained(module"),
    ),
    clause(
        f"{_ENGINE}:FSDPEngine._build_model_optimizer",
        "training.worker.lora_weights: the adapter is there before FSDP2 shards",
        says("if self._is_lora:", "module = self._build_lora_module(module)"),
    ),
    clause(
        f"{_ENGINE}:FSDPEngine.__init__",
        "training.worker.teacher: a teacher without an adapter",
        says("self._is_lora = self.model_config.lora_rank > 0"),
    ),
    clause(
        f"{_ENGINE}:FSDPEngine.get_per_tensor_param",
        "cpu.engines: merged weights for the rollouts",
        says("return (self._merged_lora_per_tensor_param(), None)"),
    ),
    clause(
        f"{_ENGINE}:FSDPEngine._merged_lora_per_tensor_param",
        "cpu.engines: merged weights for the rollouts, in float32",
        accepts(),
    ),
    clause(
        "verl.utils.checkpoint.fsdp_checkpoint_manager:FSDPCheckpointManager._save_lora_train_meta",
        "workflows.evaluate.checkpoint: a checkpoint with an adapter",
        says("'lora_train_meta.json'"),
    ),
    clause(
        "verl.model_merger.base_model_merger:BaseModelMerger.save_lora_adapter",
        "workflows.evaluate.checkpoint: the adapter beside the base model",
        says("os.path.join(self.config.target_dir, 'lora_adapter')"),
    ),
    clause(
        "peft.tuners.tuners_utils:BaseTunerLayer.disable_adapters",
        "training.worker.lora_teacher: passes without the adapter",
        says("return self._disable_adapters"),
    ),
    clause(
        "peft.tuners.lora.layer:LoraLayer.__init__",
        "training.worker.lora_weights: what is no plain A and B",
        says("self.lora_variant: ", "self.scaling = {}", "self.lora_A = ", "self.lora_B = "),
    ),
)

WORKER: tuple[Clause, ...] = (
    *_GPU,
    *_SHARED_ROWS,
    *_LORA,
)
