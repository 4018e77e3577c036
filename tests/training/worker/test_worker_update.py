"""The real worker, on one and two ranks over gloo, against the naive step and against itself cut in other ways."""

from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from verl.utils.metric import reduce_metrics

from srpo_verl.config import SRPOConfig
from srpo_verl.training.step.trainer import SRPOTrainer
from tests.training import naive_step, scenarios, tiny_model
from tests.training.rows import make_batch
from tests.training.worker_process import run_ranks

ROWS = 16
CUTS = {
    "whole": {},
    "micro_batches_of_1": {"micro_batch_size_per_gpu": 1},
    "micro_batches_of_2": {"micro_batch_size_per_gpu": 2},
    "dynamic": {"use_dynamic_bsz": True},
    "padded": {"use_remove_padding": False, "micro_batch_size_per_gpu": 4},
    "with_entropy": {"calculate_entropy": True},
}

pytestmark = pytest.mark.needs_cpu_set


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.build(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def one_rank(model):
    return run_ranks(scenarios.fields_and_gradients, 1, model, {"cuts": CUTS})


@pytest.fixture(scope="module")
def naive(model):
    """Loss and gradient of the naive step; teacher and student start from the same weights."""
    srpo = SRPOConfig(topk=8)
    batch = make_batch(vocabulary=scenarios.VOCABULARY, srpo=srpo)
    student = naive_step.load(model)
    loss, entropies = naive_step.loss(student, naive_step.load(model), batch, k=8)
    loss.backward()
    gradient = {name: parameter.grad for name, parameter in student.named_parameters()}
    return {"loss": float(loss), "gradient": gradient, "entropies": entropies, "batch": batch}


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    scale = max(float(value.abs().max()) for value in other.values())
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one) / scale


def test_the_batch_has_every_kind_of_group(naive):
    groups = naive["batch"].plan.groups
    assert (groups.all_correct, groups.all_wrong, groups.mixed) == (0.25, 0.25, 0.5)
    assert len(naive["batch"].plan.routed_rows()) == 5


@pytest.mark.parametrize("cut", CUTS)
def test_loss_and_gradient_equal_the_naive_step(one_rank, naive, cut):
    assert one_rank["cuts"][cut]["loss"] == pytest.approx(naive["loss"], abs=1e-5)
    assert largest_difference(one_rank["cuts"][cut]["gradient"], naive["gradient"]) < 1e-5


def test_teacher_entropy_is_over_the_full_vocabulary(one_rank, naive):
    for row, expected in naive["entropies"].items():
        torch.testing.assert_close(one_rank["fields"]["entropy"][row].double(), expected, atol=1e-5, rtol=1e-5)


def test_two_ranks_give_the_same_gradient(model, one_rank):
    cuts = {"fixed": {"micro_batch_size_per_gpu": 2}, "dynamic": {"use_dynamic_bsz": True}}
    two = run_ranks(scenarios.fields_and_gradients, 2, model, {"cuts": cuts, "fields": one_rank["fields"]})
    for result in two["cuts"].values():
        assert result["loss"] == pytest.approx(one_rank["cuts"]["whole"]["loss"], abs=1e-6)
        assert largest_difference(result["gradient"], one_rank["cuts"]["whole"]["gradient"]) < 1e-5


def test_a_rank_and_a_micro_batch_without_routed_rows(model, one_rank, naive):
    """All routed rows on rank 0, none on rank 1: no deadlock, same gradient."""
    routed = naive["batch"].plan.routed_rows()
    order = routed + [row for row in range(ROWS) if row not in routed]
    payload = {"cuts": {"cut": {"micro_batch_size_per_gpu": 1}}, "fields": one_rank["fields"], "order": order}
    two = run_ranks(scenarios.fields_and_gradients, 2, model, payload)
    assert largest_difference(two["cuts"]["cut"]["gradient"], one_rank["cuts"]["whole"]["gradient"]) < 1e-5


def test_padding_rows_change_nothing(model, one_rank):
    """Two rows that verl would append, in micro-batches of their own and among others."""
    payload = {"cuts": {"two": {"micro_batch_size_per_gpu": 2}, "dynamic": {"use_dynamic_bsz": True}}}
    for cut in payload["cuts"].values():
        cut["max_token_len_per_gpu"] = 160
    padded = run_ranks(scenarios.fields_and_gradients, 1, model, {**payload, "batch": {"padding": 2}})
    for result in padded["cuts"].values():
        assert result["loss"] == pytest.approx(one_rank["cuts"]["whole"]["loss"], abs=1e-6)
        assert largest_difference(result["gradient"], one_rank["cuts"]["whole"]["gradient"]) < 1e-5


@pytest.mark.parametrize(
    ("overrides", "options"),
    [
        (["srpo.alpha=0"], {"alpha": 0.0}),
        (["srpo.alpha=1"], {"alpha": 1.0}),
        (["srpo.beta=0"], {"beta": 0.0}),
    ],
)
def test_other_divergences_and_weights(model, overrides, options):
    batch = make_batch(vocabulary=scenarios.VOCABULARY, srpo=SRPOConfig(topk=8))
    student = naive_step.load(model)
    loss, _ = naive_step.loss(student, naive_step.load(model), batch, k=8, **options)
    loss.backward()
    gradient = {name: parameter.grad for name, parameter in student.named_parameters()}
    result = run_ranks(scenarios.fields_and_gradients, 1, model, {"cuts": {"whole": {}}}, overrides)
    assert result["cuts"]["whole"]["loss"] == pytest.approx(float(loss), abs=1e-5)
    assert largest_difference(result["cuts"]["whole"]["gradient"], gradient) < 1e-5


def test_over_the_distilled_tokens_alone_it_is_the_loss_of_sdpo(model):
    """Its code divides by the tokens that are distilled (arXiv 2601.20802, `compute_self_distillation_loss`)."""
    overrides = ["srpo.policy_gradient=none", "srpo.denominator=distilled_tokens"]
    batch = make_batch(vocabulary=scenarios.VOCABULARY, srpo=SRPOConfig(topk=8, policy_gradient="none"))
    distilled = sum(int(batch.masks[row].sum()) for row in batch.plan.routed_rows())
    scale = sum(int(mask.sum()) for mask in batch.masks) / distilled
    student = naive_step.load(model)
    loss, _ = naive_step.loss(student, naive_step.load(model), batch, k=8, distilled_only=True)
    loss.backward()
    gradient = {name: parameter.grad for name, parameter in student.named_parameters()}
    cuts = {"of_two": {"micro_batch_size_per_gpu": 2, "srpo_denominator_scale": scale}}
    found = run_ranks(scenarios.fields_and_gradients, 1, model, {"cuts": cuts}, overrides)["cuts"]["of_two"]
    assert found["loss"] == pytest.approx(float(loss), abs=1e-5)
    assert largest_difference(found["gradient"], gradient) < 1e-5


def test_a_mini_batch_of_masked_tokens_has_no_loss_and_no_gradient(model):
    found = run_ranks(scenarios.masked_mini_batch, 1, model)
    assert found["loss"] == 0.0
    assert all(float(value.abs().max()) == 0.0 for value in found["gradient"].values())


def test_metrics_are_means_however_often_a_batch_is_used(model):
    """Of an update that moves nothing, twice over the batch is what once is; two mini-batches what one is."""
    fixed = ["actor_rollout_ref.actor.optim.lr=0", "srpo.grad_norm_freq=0"]
    batch = make_batch(vocabulary=scenarios.VOCABULARY, srpo=SRPOConfig(topk=8))
    routed = sum(int(batch.masks[row].sum()) for row in batch.plan.routed_rows())

    def metrics(epochs, rows):
        scale = SRPOTrainer._mini_batches(trainer_of(epochs, rows), len(batch)) / routed
        payload = {"steps": 1, "epochs": epochs, "mini_batch_size": rows, "options": {"srpo_metric_scale": scale}}
        found = run_ranks(scenarios.train, 1, model, payload, fixed)["history"][0]["metrics"]
        return reduce_metrics(found)

    once = metrics(1, 16)
    for other in (metrics(2, 16), metrics(2, 8)):
        for name in ("srpo/divergence", "srpo/divergence_weighted", "srpo/ratio_clipped"):
            assert other[name] == pytest.approx(once[name], rel=1e-5, abs=1e-8), name
    assert once["srpo/divergence"] > 0


def trainer_of(epochs, rows):
    """What the driver reads of its config: prompts of 4 rollouts."""
    actor = {"ppo_epochs": epochs, "ppo_mini_batch_size": rows // 4}
    return SimpleNamespace(config=OmegaConf.create({"actor_rollout_ref": {"actor": actor, "rollout": {"n": 4}}}))


def test_nothing_routed_is_the_policy_gradient_alone(model):
    """Whole groups right or wrong: no teacher, no gradient, and no failure."""
    scores = {"a": (0, 0, 0, 0), "b": (1, 1, 1, 1)}
    payload = {"cuts": {"whole": {}}, "batch": {"scores": scores}}
    result = run_ranks(scenarios.fields_and_gradients, 1, model, payload)
    assert result["cuts"]["whole"]["loss"] == 0.0
    assert all(float(value.abs().max()) == 0.0 for value in result["cuts"]["whole"]["gradient"].values())


def test_our_grpo_is_plain_verl_grpo(model):
    """The same batch through `grpo` and through verl's own worker and loss: the same weights, bit for bit."""
    grpo = ["srpo.route=none", "srpo.policy_gradient=all"]
    ours = run_ranks(scenarios.policy_gradient_update, 1, model, None, grpo)
    vanilla = ["actor_rollout_ref.actor.policy_loss.loss_mode=vanilla"]
    theirs = run_ranks(scenarios.policy_gradient_update, 1, model, None, vanilla, plain_verl=True)
    initial = naive_step.load(model).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert any(not torch.equal(ours[name].double(), initial[name]) for name in ours)
