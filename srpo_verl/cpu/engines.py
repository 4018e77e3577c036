"""verl's FSDP engines, registered for device "cpu"."""

from unittest.mock import patch

from torch.distributed.fsdp import CPUOffloadPolicy
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp import transformer_impl
from verl.workers.engine.fsdp.transformer_impl import FSDPEngine, FSDPEngineWithLMHead, FSDPEngineWithValueHead

from srpo_verl.training.worker.lora_weights import merged_state
from srpo_verl.training.worker.shards import reshard


class _OnCPU(FSDPEngine):
    """A forward-only engine asks for CPUOffloadPolicy(pin_memory=True), and pinning needs an accelerator.

    Weights with the adapter merged are rounded to bfloat16 on their way to the rollouts, which compute in float32 here.
    """

    def _build_fsdp_module(self, module):
        with patch.object(transformer_impl, "CPUOffloadPolicy", lambda pin_memory: CPUOffloadPolicy(pin_memory=False)):
            return super()._build_fsdp_module(module)

    def _merged_lora_per_tensor_param(self):
        reshard(self.module)
        return merged_state(self.module)


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")
class CPUEngineWithLMHead(_OnCPU, FSDPEngineWithLMHead):
    """Actor, reference and teacher."""


@EngineRegistry.register(model_type="value_model", backend=["fsdp", "fsdp2"], device="cpu")
class CPUEngineWithValueHead(_OnCPU, FSDPEngineWithValueHead):
    """Critic."""
