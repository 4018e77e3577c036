"""Divergences and teachers of one's own in the real objective and the real worker; a broken coupling stops the run."""

import pytest
import torch
from safetensors.torch import load_file
from verl.utils import tensordict_utils as tu

from srpo_verl.config import SRPOConfig
from srpo_verl.core import student_topk
from srpo_verl.training.fields import TEACHER_LOG_PROBS, TOKEN_WEIGHTS, TOPK_IDS, jagged
from srpo_verl.training.worker import objective as module
from srpo_verl.training.worker.objective import ANY_ROUTED, DIVERGENCE, SRPOObjective
from srpo_verl.training.worker.teacher_weights import TeacherWeights
from srpo_verl.variants import VariantError
from tests.training import scenarios, tiny_model
from tests.training.worker_process import run_ranks

MODULE = "srpo.variant_modules=[tests.training.variants_for_tests]"


def problem(divergence="jsd"):
    """An objective, logits (5, 7) of one sequence of which the last three tokens are distilled, and its data."""
    srpo = SRPOConfig(divergence=divergence, topk=3, variant_modules=["tests.training.variants_for_tests"])
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 7, generator=generator).requires_grad_(True)
    ids = student_topk(logits, torch.arange(1, 4), 3)
    fields = {
        "input_ids": jagged([torch.arange(5)]),
        TOPK_IDS: jagged([ids.to(torch.int32)]),
        TEACHER_LOG_PROBS: jagged([torch.randn(3, 7, generator=generator).log_softmax(-1).gather(-1, ids)]),
        TOKEN_WEIGHTS: jagged([torch.ones(3)]),
    }
    return SRPOObjective(None, srpo), logits, tu.get_tensordict(fields, {ANY_ROUTED: True})


def test_any_differentiable_function_of_the_buckets():
    objective, logits, data = problem("total variation")
    values = objective.on_logits(logits, data)[DIVERGENCE].squeeze(0)
    found = torch.autograd.grad(values.sum(), logits)[0]
    ids, teacher = data[TOPK_IDS].values().long(), data[TEACHER_LOG_PROBS].values().exp()
    p = logits.log_softmax(-1)[1:4].gather(-1, ids).exp()
    both = [torch.cat([side, 1 - side.sum(-1, keepdim=True)], dim=-1) for side in (p, teacher)]
    expected = 0.5 * (both[0] - both[1]).abs().sum(-1)
    torch.testing.assert_close(values[1:4], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(found, torch.autograd.grad(expected.sum(), logits)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("not a number", "3 of 3 values of the divergence are not finite"),
        ("infinite slope", "slopes of the divergence are not finite"),
        ("one number", r"one number per token, \(3,\), not \(\)"),
        ("constant", "does not require grad"),
    ],
)
def test_a_hostile_divergence_is_named(name, says):
    objective, logits, data = problem(name)
    with pytest.raises(VariantError, match=says) as caught:
        objective.on_logits(logits, data)
    assert f"srpo.divergence={name}" in str(caught.value)
    objective, logits, data = problem(name)
    tu.assign_non_tensor(data, distillation_only=True)
    with pytest.raises(VariantError, match=says) as caught:
        objective.on_logits(logits, data)[DIVERGENCE].sum().backward()
    assert f"srpo.divergence={name}" in str(caught.value)


def test_a_pass_whose_loss_leaves_the_divergence_out_has_no_slopes_to_check():
    """As the gradient norm of the other branch."""
    objective, logits, data = problem("total variation")
    tu.assign_non_tensor(data, distillation_only=True)
    objective.on_logits(logits, data)["log_probs"].sum().backward()
    assert bool(logits.grad.isfinite().all())


def test_routed_rows_without_a_divergence_stop_the_run(monkeypatch):
    """verl's engine did not call the hook: the policy loss alone would be GRPO."""
    monkeypatch.setattr(module, "ppo_loss", lambda *_: (torch.zeros(()), {}))
    objective, _, data = problem()
    with pytest.raises(RuntimeError, match="did not hand over the logits"):
        objective.on_outputs({"log_probs": torch.zeros(1)}, data, None)
    tu.assign_non_tensor(data, **{ANY_ROUTED: False, "batch_num_tokens": 4})
    assert objective.on_outputs({"log_probs": torch.zeros(1)}, data, None)[1] == {}


@pytest.mark.needs_cpu_set
@pytest.mark.parametrize(
    ("step", "says"),
    [
        (lambda teacher, actor: teacher.add_(actor.sub_(teacher)), "this one changed the actor"),
        (lambda teacher, actor: teacher.lerp(actor, 0.5), "is an underscore missing"),
    ],
)
def test_a_careless_step_of_a_teacher_is_refused(step, says):
    teacher, actor = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=says):
        TeacherWeights(teacher).follow(actor, step)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.build(tmp_path_factory.mktemp("model"))


@pytest.mark.needs_cpu_set
@pytest.mark.needs_cpu_set
def test_a_teacher_that_copies_every_second_step(model):
    overrides = [MODULE, "srpo.teacher.kind='copies every second step'"]
    history = run_ranks(scenarios.train, 1, model, {"steps": 4}, overrides)["history"]
    first = history[0]["teacher"]
    for step, record in enumerate(history):  # numbered from 0
        expected = record["actor"] if step % 2 == 0 else history[step - 1]["actor"]
        assert all(torch.equal(record["teacher"][name], expected[name]) for name in expected)
    assert any(not torch.equal(first[name], history[2]["teacher"][name]) for name in first)


@pytest.mark.needs_cpu_set
@pytest.mark.needs_cpu_set
def test_a_teacher_that_leaves_the_numbers_is_named(model):
    with pytest.raises(Exception, match=r"srpo.teacher.kind=poisoned .* left the teacher with weights that are not"):
        run_ranks(scenarios.train, 1, model, {"steps": 1}, [MODULE, "srpo.teacher.kind=poisoned"])


@pytest.mark.needs_cpu_set
@pytest.mark.needs_cpu_set
def test_mixed_logits_of_another_shape_are_named(model):
    with pytest.raises(Exception, match=r"srpo.teacher.kind=half the logits .* mix_logits must give logits of shape"):
        run_ranks(scenarios.train, 1, model, {"steps": 1}, [MODULE, "srpo.teacher.kind='half the logits'"])


@pytest.mark.needs_cpu_set
@pytest.mark.needs_cpu_set
def test_a_teacher_starts_from_a_folder(model, tmp_path_factory):
    """Other weights of the same architecture; they are not the actor's, before or after."""
    other = tiny_model.build(tmp_path_factory.mktemp("other"), seed=7)
    answers = run_ranks(
        scenarios.teacher_answers, 1, model, {"steps": 1}, ["srpo.teacher.kind=frozen", f"srpo.teacher.path={other}"]
    )
    expected = load_file(other / "model.safetensors")
    assert all(torch.equal(answers["teacher"][name], expected[name]) for name in expected)
    assert any(not torch.equal(answers["actor"][name], expected[name]) for name in expected)
