"""verl's FSDP engines, registered for device "cpu"."""

from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngine, FSDPEngineWithLMHead, FSDPEngineWithValueHead


class _WithoutPinnedOffload(FSDPEngine):
    """A forward-only engine asks for CPUOffloadPolicy(pin_memory=True), and pinning needs an accelerator."""

    def _build_fsdp_module(self, module):
        config = self.engine_config
        forward_only, config.forward_only = config.forward_only, False
        try:
            return super()._build_fsdp_module(module)
        finally:
            config.forward_only = forward_only


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")
class CPUEngineWithLMHead(_WithoutPinnedOffload, FSDPEngineWithLMHead):
    """Actor, reference and teacher."""


@EngineRegistry.register(model_type="value_model", backend=["fsdp", "fsdp2"], device="cpu")
class CPUEngineWithValueHead(_WithoutPinnedOffload, FSDPEngineWithValueHead):
    """Critic."""
