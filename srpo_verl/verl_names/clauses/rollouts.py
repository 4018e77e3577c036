"""Rollouts: agent loops, rewards, data, the way of the weights."""

from __future__ import annotations

from srpo_verl.verl_names.contract import Clause, accepts, clause, says

_LOOP = "verl.trainer.ppo.v1.agent_loop_tq"
_VLLM = "verl.workers.rollout.vllm_rollout"
_TOOL_AGENT = "verl.experimental.agent_loop.tool_agent_loop:ToolAgentLoop"
_TOOL_LOOP = "training.rollout.tool_agent_loop: turns are noted, tools have a deadline"
_ACTORS = "verl_names.driver: actors that are watched"
_SOCKET = "training.rollout.weight_socket: two runs on one machine would share weights"
_SOCKET_NAME = "ipc:///tmp/rl-colocate-zmq-{job_id}-replica-{"

ROLLOUTS: tuple[Clause, ...] = (
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
        says("_agent_loop_registry[agent_name]", "tools=ToolListWrap(self.tools)"),
    ),
    clause(
        f"{_LOOP}:AgentLoopWorkerTQ._agent_loop_postprocess",
        "training.rollout.agent_loop: the tools that a prompt lists become a field",
        says("field.update(kwargs)"),
    ),
    clause(
        "verl.experimental.agent_loop.tool_agent_loop:ToolAgentLoop.run",
        "training.rollout.tool_schemas: which tools a prompt lists",
        says("extra_info.get('tool_selection')", "model_dump(exclude_unset=True, exclude_none=True)"),
    ),
    *(
        clause(f"{_TOOL_AGENT}.{method}", _TOOL_LOOP, *checks)
        for method, *checks in (
            (
                "run",
                says("extra_fields=agent_data.extra_fields", "agent_data.prompt_ids[-len(agent_data.response_mask):]"),
            ),
            ("_handle_pending_state", accepts("agent_data", "sampling_params")),
            (
                "_handle_generating_state",
                accepts("agent_data", "sampling_params"),
                says(
                    "if not agent_data.extra_fields",
                    "agent_data.response_ids = output.token_ids",
                    "agent_data.messages.append(self._build_assistant_message(assistant_content, agent_data))",
                ),
            ),
            (
                "_handle_processing_tools_state",
                accepts("agent_data"),
                says(
                    "for tool_call in agent_data.tool_calls[:self.max_parallel_calls]",
                    "self._call_tool(tool_call, agent_data.tools_kwargs, agent_data)",
                    "agent_data.messages.extend(add_messages)",
                ),
            ),
            (
                "_call_tool",
                accepts("tool_call", "tools_kwargs", "agent_data"),
                says(
                    "Unknown function '{tool_name}'",
                    "Invalid JSON in arguments for '{tool_name}'",
                    "Error executing tool '{tool_name}'",
                ),
            ),
        )
    ),
    clause(
        "verl.experimental.agent_loop.agent_loop:register",
        _TOOL_LOOP,
        says("_agent_loop_registry[agent_name] = "),
    ),
    clause(
        f"{_LOOP}:AgentLoopWorkerTQ._agent_loop_postprocess",
        "training.rollout.agent_loop: the turns of a session become a field",
        accepts("output", "validate", "kwargs"),
    ),
    clause(
        "verl.experimental.agent_loop.agent_loop:AgentLoopWorker._compute_score",
        "training.rollout.agent_loop: the reward function sees the turns",
        says("'tool_extra_fields': np.array([o.extra_fields for o in outputs], dtype=object)"),
    ),
    clause(
        "verl.experimental.reward_loop.reward_manager.naive:NaiveRewardManager.run_single",
        "training.rollout.agent_loop: the reward function sees the turns",
        says("extra_info.update(tool_extra_fields.items())"),
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
        f"{_VLLM}.bucketed_weight_transfer:BucketedWeightSender._init_buffer",
        "verl_names.leftovers: shared memory of dead runs is removed",
        says("shm_name = f'verl_weights_{uuid.uuid4().hex}'"),
    ),
    clause(
        f"{_VLLM}.vllm_async_server:vLLMHttpServer.launch_server",
        "config.srpo.yaml: worker_extension_cls of engine_kwargs, over verl's own",
        says("'worker_extension_cls': self._get_worker_extension_cls()", "**engine_kwargs}"),
    ),
)
