"""The twin against the real worker: the same loss, gradient, update and EMA on the same batches, for every method."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from laboratory.methods import method_overrides
from laboratory.twin import Batch, Twin, gradient
from srpo_verl.config import METHODS, settings
from tests.compose import compose
from tests.laboratory.worker_steps import every_method, make_batch
from tests.training import tiny_model
from tests.training.naive_step import response_logits
from tests.training.worker_process import run_ranks

SETTINGS = [
    "platform=cpu",
    "actor_rollout_ref.actor.optim.lr=1e-2",
    "actor_rollout_ref.actor.optim.lr_warmup_steps=0",
    "srpo.topk=8",
]
CASES = {name: method_overrides(name) for name in METHODS}
CASES["teacher_support"] = ["srpo.support=teacher", "srpo.alpha=0.3", "srpo.beta=3", "srpo.teacher.ema_rate=0.5"]
CASES["live_teacher"] = ["srpo.teacher.kind=live", "srpo.route=all"]
CASES["demopsd"] = method_overrides("demopsd")
# A clip that no entry of these batches lies on: there the gradient jumps, and rounding would decide.
CASES["clipped"] = ["srpo.alpha=0", "srpo.entry_clip=0.02", "srpo.support=teacher", "srpo.policy_gradient=all"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.build(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def real(model):
    return run_ranks(every_method, 1, model, {"methods": CASES, "model": str(model)})


def twin_batch(srpo, step):
    rows = make_batch(srpo, step)
    return Batch(
        plan=rows.plan,
        prompts=rows.prompts,
        responses=rows.responses,
        masks=rows.masks,
        rewards=torch.tensor([rollout.score for rollout in rows.plan.rollouts]),
        teacher_prompts=dict(enumerate(rows.teacher_prompts)),
        importance=rows.importance,
    )


def relative(
    one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], where: dict[str, torch.Tensor] | None = None
) -> float:
    assert one.keys() == other.keys()
    scale = max(float(value.abs().max()) for value in other.values())
    off = {name: (one[name].detach() - other[name]).abs() for name in one}
    return max(float((off[name] if where is None else off[name] * where[name]).max()) for name in one) / scale


def beyond_rounding(gradient: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Where Adam's step, which is of one size for every gradient, is decided by more than rounding."""
    scale = max(float(value.abs().max()) for value in gradient.values())
    return {name: value.abs() > 1e-4 * scale for name, value in gradient.items()}


@pytest.mark.needs_cpu_set
@pytest.mark.parametrize("name", CASES)
def test_two_steps_equal_the_real_workers(model, real, name):
    config = compose("srpo", [*SETTINGS, *CASES[name]])
    student = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    initial = {key: value.clone() for key, value in student.named_parameters()}
    twin = Twin(student, config)
    sure = {key: torch.ones_like(value, dtype=torch.bool) for key, value in initial.items()}
    for step, expected in enumerate(real[name]):
        batch = twin_batch(settings(config.srpo), step)
        found = gradient(twin, batch)
        assert found["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        assert relative(found["gradient"], expected["gradient"]) < 1e-4
        twin.step(batch)
        sure = {key: sure[key] & here for key, here in beyond_rounding(expected["gradient"]).items()}
        assert sum(int(here.sum()) for here in sure.values()) > 0.5 * sum(here.numel() for here in sure.values())
        assert relative(dict(twin.model.named_parameters()), expected["student"], sure) < 1e-3
        assert (expected["teacher"] is not None) == twin.srpo.owns_teacher
        if twin.srpo.owns_teacher:
            assert relative(dict(twin.teacher.named_parameters()), expected["teacher"], sure) < 1e-3
    assert relative(initial, real[name][-1]["student"]) > 1e-2


def test_the_twins_gain_by_hand(model):
    config = compose("srpo", SETTINGS)
    twin = Twin(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), config)
    batch = twin_batch(settings(config.srpo), 0)
    twin.step(batch)
    differences = []
    for row in batch.plan.routed_rows():
        sibling = int(batch.plan.routing.demonstration[row])
        # Of rows with the same sibling, which share a prompt in a run but not here, the last counts.
        last = max(r for r in batch.plan.routed_rows() if int(batch.plan.routing.demonstration[r]) == sibling)
        if row == last:
            response, kept = batch.responses[sibling], batch.masks[sibling].bool()
            scores = [
                response_logits(m, prompt, response).log_softmax(-1).gather(-1, response[:, None]).squeeze(-1)[kept]
                for m, prompt in ((twin.teacher, batch.teacher_prompts[row]), (twin.model, batch.prompts[sibling]))
            ]
            differences.append(scores[0] - scores[1])
    assert twin.teacher_gain(batch) == pytest.approx(torch.cat(differences).mean().item(), abs=1e-5)
    nothing = make_batch(settings(config.srpo), 0)
    unrouted = replace(batch, plan=nothing.plan.without(nothing.plan.routed_rows()))
    assert twin.teacher_gain(unrouted) is None


@pytest.mark.needs_cpu_set
def test_the_methods_are_different_updates(real):
    """Otherwise the comparison above could not tell one method from another."""
    for one in METHODS:
        for other in METHODS:
            if one != other:
                assert relative(real[one][0]["gradient"], real[other][0]["gradient"]) > 1e-3, (one, other)
