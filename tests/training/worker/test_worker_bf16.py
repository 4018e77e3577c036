"""The real worker in bf16 mixed precision, as on GPUs, against float64: only the model's own rounding is seen."""

import pytest
import torch

from srpo_verl.config import SRPOConfig
from tests.training import naive_step, scenarios, tiny_model
from tests.training.rows import make_batch
from tests.training.worker_process import run_ranks

pytestmark = pytest.mark.needs_cpu_set
BF16 = ["actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=bf16"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.build(tmp_path_factory.mktemp("model"))


def gradient_vector(gradient: dict[str, torch.Tensor], names: list[str]) -> torch.Tensor:
    return torch.cat([gradient[name].double().flatten() for name in names])


def test_entropies_are_exact_for_the_logits_that_the_model_gave(model):
    """Inside autocast an entropy would be rounded to bfloat16, off by up to 8e-3 here."""
    result = run_ranks(scenarios.entropies_in_bfloat16, 1, model, None, BF16)
    collected, exact = (torch.cat(result[key]).double() for key in ("collected", "exact"))
    assert collected.numel() > 15
    assert float((collected - exact).abs().max()) < 2e-6


@pytest.mark.parametrize("path", ["one_pass=false", "one_pass=true", "fused_linear=true"])
@pytest.mark.parametrize("checkpointing", ["false", "true"])
def test_loss_and_gradient_equal_float64_within_the_models_rounding(model, checkpointing, path):
    overrides = [*BF16, f"actor_rollout_ref.model.enable_gradient_checkpointing={checkpointing}", f"srpo.{path}"]
    cuts = {"whole": {}, "micro_batches_of_2": {"micro_batch_size_per_gpu": 2}, "dynamic": {"use_dynamic_bsz": True}}
    result = run_ranks(scenarios.fields_and_gradients, 1, model, {"cuts": cuts}, overrides)
    batch = make_batch(vocabulary=scenarios.VOCABULARY, srpo=SRPOConfig(topk=8))
    student = naive_step.load(model)
    loss, _ = naive_step.loss(student, naive_step.load(model), batch, k=8)
    loss.backward()
    names = [name for name, _ in student.named_parameters()]
    expected = gradient_vector({name: parameter.grad for name, parameter in student.named_parameters()}, names)
    for cut in cuts:
        found = gradient_vector(result["cuts"][cut]["gradient"], names)
        # In other micro-batches logits are rounded to other sides, which log-probs in float32 show in pi / pi_old.
        assert result["cuts"][cut]["loss"] == pytest.approx(float(loss), abs=5e-4)
        assert float((found - expected).norm() / expected.norm()) < 0.03
