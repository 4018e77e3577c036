"""verl's extension of vLLM's workers, listening on this run's own socket (see `weight_socket`)."""

from __future__ import annotations

from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

from srpo_verl.training.rollout.weight_socket import of_this_run


class WorkerExtension(vLLMColocateWorkerExtension):
    """`actor_rollout_ref.rollout.engine_kwargs.vllm.worker_extension_cls` of our configs."""

    def _get_zmq_handle(self) -> str:
        return of_this_run(super()._get_zmq_handle())
