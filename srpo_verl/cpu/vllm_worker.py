"""vLLM worker extension for its CPU build: weights that can be loaded again and again.

On CPU vLLM packs linear weights for oneDNN and drops `.weight`, so plain `load_weights` fails the second time; vLLM's
layer-wise reload re-creates, loads and packs each layer. Received tensors are views of the sender's shared memory,
which is overwritten by the next bucket and cannot be closed while views exist: they are cloned.
"""

from __future__ import annotations

import torch
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver
from vllm.config import set_current_vllm_config
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from srpo_verl.training.rollout.vllm_worker import WorkerExtension


class CPUWorkerExtension(WorkerExtension):
    """`rollout.engine_kwargs.vllm.worker_extension_cls` of `platform=cpu`."""

    def update_weights_from_ipc(self, peft_config=None, base_sync_done=False, use_shm=False):
        if peft_config and base_sync_done:
            raise ValueError("adapters cannot be synchronised on CPU: set actor_rollout_ref.model.lora.merge=true")
        model = self.model_runner.get_model()

        def load(bucket: list[tuple[str, torch.Tensor]], is_last: bool) -> None:
            copies = [(name, tensor.clone()) for name, tensor in bucket]
            bucket.clear()
            model.load_weights(copies)

        with set_current_vllm_config(self.vllm_config), torch.no_grad():
            initialize_layerwise_reload(model)
            receiver = BucketedWeightReceiver(
                zmq_handle=self._get_zmq_handle(), device=torch.device("cpu"), use_shm=use_shm
            )
            receiver.receive_weights(on_bucket_received=load)
            finalize_layerwise_reload(model, self.model_runner.vllm_config.model_config)
