"""One gradient for the whole loss, over the logits or without them, in the real worker: that of the naive step."""

import pytest
import torch

from srpo_verl.config import SRPOConfig
from tests.training import naive_step, output_scenarios, scenarios, tiny_model
from tests.training.rows import make_batch
from tests.training.worker_process import run_ranks

pytestmark = pytest.mark.needs_cpu_set
PLAIN = ["srpo.one_pass=false"]
FUSED = ["srpo.fused_linear=true"]
CUTS = {
    "whole": {},
    "micro_batches_of_2": {"micro_batch_size_per_gpu": 2},
    "dynamic": {"use_dynamic_bsz": True},
    "with_entropy": {"srpo_entropy": True},
}
# The engine itself reads the logits too.
ON_LOGITS = {
    **CUTS,
    "padded": {"use_remove_padding": False, "micro_batch_size_per_gpu": 4},
    "with_verls_entropy": {"calculate_entropy": True},
    "with_sum_pi_squared": {"calculate_sum_pi_squared": True},
}
LAST = ["actor_rollout_ref.actor.entropy_coeff=0.01", "actor_rollout_ref.actor.calculate_entropy=true"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.build(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def naive(model):
    batch = make_batch(vocabulary=scenarios.VOCABULARY, srpo=SRPOConfig(topk=8))
    student = naive_step.load(model)
    loss, entropies = naive_step.loss(student, naive_step.load(model), batch, k=8)
    loss.backward()
    return float(loss.detach()), {name: parameter.grad for name, parameter in student.named_parameters()}, entropies


def largest_difference(one, other):
    assert one.keys() == other.keys()
    scale = max(float(value.abs().max()) for value in other.values())
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one) / scale


@pytest.mark.parametrize(("cuts", "overrides"), [(ON_LOGITS, []), (CUTS, FUSED)], ids=["logits", "no logits"])
@pytest.mark.parametrize("world", [1, 2])
def test_loss_and_gradient_equal_the_naive_step(model, naive, cuts, overrides, world):
    result = run_ranks(scenarios.fields_and_gradients, world, model, {"cuts": cuts}, overrides)
    for cut, found in result["cuts"].items():
        assert found["loss"] == pytest.approx(naive[0], abs=1e-5), cut
        assert largest_difference(found["gradient"], naive[1]) < 1e-5, cut
    for row, expected in naive[2].items():
        torch.testing.assert_close(result["fields"]["entropy"][row].double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "overrides",
    [
        ["srpo.one_pass=true"],
        FUSED,
        [*FUSED, *LAST],
        [*LAST],
        [*FUSED, "srpo.support=teacher"],
        [*FUSED, "actor_rollout_ref.model.enable_gradient_checkpointing=true"],
    ],
    ids=lambda value: " ".join(part.rpartition(".")[2] for part in value),
)
def test_updates_are_those_of_the_plain_path(model, overrides):
    """Two updates of two mini-batches with the teacher's steps: weights, metrics and what the teacher says."""
    payload = {"steps": 2, "mini_batch_size": 8, "measure_branches": True, "calculate_entropy": LAST[0] in overrides}
    shared = [key for key in overrides if key not in (*FUSED, "srpo.one_pass=true")]
    plain = run_ranks(scenarios.train, 1, model, payload, [*shared, "srpo.one_pass=false"])["history"][-1]
    found = run_ranks(scenarios.train, 1, model, payload, overrides)["history"][-1]
    for part in ("actor", "teacher"):
        # The first steps of AdamW are as large whatever the gradient, so rounding of it is seen in the weights.
        assert largest_difference(found[part], plain[part]) < 2e-3
    for name, value in plain["metrics"].items():
        if name.startswith(("srpo/", "actor/")):
            assert found["metrics"][name] == pytest.approx(value, rel=2e-3, abs=1e-5), name


@pytest.mark.parametrize(
    ("overrides", "function"),
    [(PLAIN, "logit_divergence"), ([], "listed_log_probs"), (FUSED, "linear_log_probs")],
)
def test_the_path_that_is_asked_for_is_taken(model, overrides, function):
    assert run_ranks(output_scenarios.functions_called, 1, model, None, overrides) == {function}


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_and_entropies_of_every_pass_are_verls(model, temperature):
    """Of the policy with and without top K, and of the reference."""
    results = [
        run_ranks(output_scenarios.log_probs_and_entropies, 1, model, {"temperature": temperature}, overrides)
        for overrides in (PLAIN, [], FUSED)
    ]
    for found in results[1:]:
        assert found.keys() == results[0].keys()
        for name, expected in results[0].items():
            torch.testing.assert_close(found[name], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("overrides", [[], FUSED], ids=["logits", "no logits"])
def test_a_temperature_and_a_step_off_policy(model, overrides):
    payload = {"off_policy": 1.01, "cuts": {"": {"temperature": 0.7}}}
    plain = run_ranks(scenarios.fields_and_gradients, 1, model, payload, PLAIN)
    found = run_ranks(scenarios.fields_and_gradients, 1, model, {**payload, "fields": plain["fields"]}, overrides)
    assert found["cuts"][""]["loss"] == pytest.approx(plain["cuts"][""]["loss"], rel=1e-5)
    assert largest_difference(found["cuts"][""]["gradient"], plain["cuts"][""]["gradient"]) < 1e-5


@pytest.mark.parametrize("world", [1, 2])
def test_tied_weights_without_logits(tmp_path, world):
    """The gradient of one matrix from both its ends, on ranks that each hold a part of it."""
    tied = tiny_model.build(tmp_path / "tied", tied=True)
    plain = run_ranks(scenarios.fields_and_gradients, world, tied, {"cuts": {"": {}}}, PLAIN)
    payload = {"cuts": {"": {}}, "fields": plain["fields"]}
    found = run_ranks(scenarios.fields_and_gradients, world, tied, payload, FUSED)
    assert found["cuts"][""]["loss"] == pytest.approx(plain["cuts"][""]["loss"], rel=1e-5)
    assert largest_difference(found["cuts"][""]["gradient"], plain["cuts"][""]["gradient"]) < 1e-5


@pytest.mark.parametrize("overrides", [[], FUSED], ids=["logits", "no logits"])
def test_a_step_without_routed_rollouts_is_the_policy_loss_alone(model, overrides):
    payload = {"steps": 1, "batch": {"scores": {"a": (1, 1, 1, 1), "b": (0, 0, 0, 0)}}}
    results = [run_ranks(scenarios.train, 1, model, payload, one)["history"][0] for one in (PLAIN, overrides)]
    metrics = [{n: v for n, v in result["metrics"].items() if n.startswith(("srpo/", "actor/"))} for result in results]
    assert metrics[0].keys() == metrics[1].keys()
    assert "srpo/divergence" not in metrics[1]
    assert largest_difference(results[1]["actor"], results[0]["actor"]) < 2e-3


def test_a_model_that_does_more_than_multiply_is_refused(model):
    said = run_ranks(output_scenarios.other_heads, 1, model, None, ["srpo.one_pass=true"])
    assert "changes the logits after its output layer (a softcap or a scale)" in said["scaled"]
    assert "does more than multiply with its weights" in said["softcap inside"]
    assert "has a bias" in said["bias"]
    assert "adapter on it" in said["adapter"]
    assert all("srpo.fused_linear=false" in text for text in said.values())


def test_a_pass_that_wants_logits_stops_the_run(model):
    said = run_ranks(output_scenarios.passes_that_want_logits, 1, model, None, FUSED)
    assert all("srpo.fused_linear=true" in text for text in said.values())
    assert "calculate_entropy" in said["entropy by verl"]
    assert "calculate_sum_pi_squared" in said["sum of squares"]
    assert "padding" in said["padding"]
    assert "one temperature" in said["temperatures"]
