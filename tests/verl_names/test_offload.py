"""A forward-only engine that brings its weights for each pass: where they are, by verl's own code."""

from types import SimpleNamespace

import pytest
import torch
from verl.workers.engine.fsdp import transformer_impl as verls

from srpo_verl.verl_names.worker import without_offload_policy


@pytest.fixture
def engine(monkeypatch):
    """verl's engine over nothing, on a device that is said to be CUDA; `at` is where its weights are."""
    found = object.__new__(verls.FSDPEngine)
    found.at = "cuda"

    def moves(place):
        return lambda module, *_: setattr(found, "at", place)

    monkeypatch.setattr(verls, "offload_fsdp_model_to_cpu", moves("cpu"))
    monkeypatch.setattr(verls, "load_fsdp_model_to_gpu", moves("cuda"))
    monkeypatch.setattr(verls, "log_gpu_memory_usage", lambda *_, **__: None)
    for module in (verls, "verl.workers.engine.base"):
        monkeypatch.setattr(f"{getattr(module, '__name__', module)}.get_device_name", lambda: "cuda")
    monkeypatch.setattr(torch.distributed, "barrier", lambda: None)
    weights = SimpleNamespace(device=SimpleNamespace(type="cuda"))
    found.engine_config = SimpleNamespace(forward_only=True, param_offload=True, fsdp_size=1)
    found.module = SimpleNamespace(eval=lambda: None, parameters=lambda: iter([weights]))
    found.optimizer = found.ulysses_parallel_group = None
    found._is_offload_param, found._is_offload_optimizer = True, False
    found._build_fsdp_module = lambda module: found.engine_config.forward_only
    found.checkpoint_manager = SimpleNamespace(save_checkpoint=lambda **_: None)
    return found


def test_the_weights_are_on_the_device_in_a_pass_and_on_the_host_between_passes(engine):
    without_offload_policy(engine)
    assert engine._build_fsdp_module(None) is False, "built as one that trains"
    engine.to("cpu", model=True, optimizer=False, grad=False)  # as verl does after building it
    assert engine.at == "cpu"
    for _ in range(2):
        with engine.eval_mode():
            assert engine.at == "cuda"
        assert engine.at == "cpu"
        engine.save_checkpoint("folder")
        assert engine.at == "cpu"
    assert engine.engine_config.forward_only is True
