"""The teacher's weights in the real worker: EMA, frozen, live, trust region, save and load."""

import pytest
import torch

from srpo_verl.config import SRPOConfig
from tests.training import naive_step, scenarios, tiny_model
from tests.training.rows import make_batch
from tests.training.worker_process import run_ranks

pytestmark = pytest.mark.needs_cpu_set


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.build(tmp_path_factory.mktemp("model"))


def same(one, other) -> bool:
    return all(torch.equal(one[name], other[name]) for name in other)


def test_ema_follows_the_closed_form_of_the_saved_actor_weights(model):
    history = run_ranks(scenarios.train, 1, model, {"steps": 4, "measure_branches": True})["history"]
    initial = {name: value.float() for name, value in naive_step.load(model).state_dict().items()}
    for name in history[0]["teacher"]:
        teacher = initial[name].double()
        for step in history:
            teacher = 0.95 * teacher + 0.05 * step["actor"][name].double()
            torch.testing.assert_close(step["teacher"][name].double(), teacher, atol=1e-6, rtol=1e-5)
    assert not same(history[-1]["teacher"], history[-1]["actor"])
    assert not any(step["teacher_gradients"] for step in history)
    for step in history:
        assert step["metrics"]["srpo/teacher_distance"] > 0
        assert step["metrics"]["srpo/grad_norm/grpo"] > 0
        assert step["metrics"]["srpo/grad_norm/sdpo"] > 0


def test_ema_on_two_ranks_equals_one(model):
    """Each rank moves its own shards; several mini-batches still mean one EMA step per training step."""
    one = run_ranks(scenarios.train, 1, model, {"steps": 2})["history"][-1]
    two = run_ranks(scenarios.train, 2, model, {"steps": 2})["history"][-1]
    for name, value in one["teacher"].items():
        torch.testing.assert_close(two["teacher"][name], value, atol=2e-4, rtol=1e-3)
    assert two["metrics"]["srpo/teacher_distance"] == pytest.approx(one["metrics"]["srpo/teacher_distance"], rel=1e-2)


def test_frozen_teacher_stays_bit_identical(model):
    history = run_ranks(scenarios.train, 1, model, {"steps": 2}, ["srpo.teacher.kind=frozen"])["history"]
    initial = {name: value.float() for name, value in naive_step.load(model).state_dict().items()}
    assert same(history[-1]["teacher"], {name: initial[name] for name in history[-1]["teacher"]})
    assert not same(history[-1]["actor"], history[-1]["teacher"])


@pytest.mark.parametrize("kind", ["live", "trust_region", "frozen"])
def test_answers_come_from_the_right_weights(model, kind):
    """Entropies against logits computed by hand from the weights the worker says it has."""
    result = run_ranks(scenarios.teacher_answers, 1, model, {"steps": 2}, [f"srpo.teacher.kind={kind}"])
    batch = make_batch(vocabulary=scenarios.VOCABULARY, srpo=SRPOConfig(topk=8))
    actor = naive_step.load(model, result["actor"])
    initial = naive_step.load(model)
    assert (result["teacher"] is None) == (kind == "live")
    for row in batch.plan.routed_rows():
        with torch.no_grad():
            parts = [
                naive_step.response_logits(m, batch.teacher_prompts[row], batch.responses[row])
                for m in (initial, actor)
            ]
        logits = {"live": parts[1], "frozen": parts[0], "trust_region": 0.5 * parts[0] + 0.5 * parts[1]}[kind]
        q = logits.log_softmax(-1)
        torch.testing.assert_close(
            result["fields"]["entropy"][row].double(), -(q.exp() * q).sum(-1), atol=1e-4, rtol=1e-4
        )
        ids = result["fields"]["topk_ids"][row].long()
        torch.testing.assert_close(
            result["fields"]["teacher_log_probs"][row].double(), q.gather(-1, ids), atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("overrides", [[], ["srpo.teacher.kind=trust_region", "srpo.support=teacher"]])
def test_log_probs_of_what_the_teacher_is_shown(model, overrides):
    """The teacher's weights, its prompts, the sampled tokens; whatever the loss takes its support from."""
    rows = [3, 0, 7, 5]
    result = run_ranks(scenarios.shown_answers, 1, model, {"rows": rows}, overrides)
    batch = make_batch(vocabulary=scenarios.VOCABULARY, srpo=SRPOConfig(topk=8))
    parts = [naive_step.load(model, result["teacher"])]
    if overrides:
        parts.append(naive_step.load(model, result["actor"]))
    for row, found in zip(rows[:-1], result["found"], strict=False):
        with torch.no_grad():
            logits = [naive_step.response_logits(m, batch.teacher_prompts[row], batch.responses[row]) for m in parts]
        expected = torch.stack(logits).mean(0).log_softmax(-1).gather(-1, batch.responses[row][:, None]).squeeze(-1)
        torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)
    assert result["found"][-1].numel() == 0


def test_the_teachers_own_support(model):
    overrides = ["srpo.support=teacher"]
    result = run_ranks(scenarios.fields_and_gradients, 1, model, {"cuts": {"whole": {}}}, overrides)
    batch = make_batch(vocabulary=scenarios.VOCABULARY, srpo=SRPOConfig(topk=8))
    teacher = naive_step.load(model)
    for row in batch.plan.routed_rows():
        with torch.no_grad():
            logits = naive_step.response_logits(teacher, batch.teacher_prompts[row], batch.responses[row])
        expected = logits.topk(8).indices
        assert torch.equal(result["fields"]["topk_ids"][row].long().sort().values, expected.sort().values)


def test_save_and_load_bring_the_teacher_back(model, tmp_path):
    payload = {"folder": str(tmp_path / "global_step_2")}
    result = run_ranks(scenarios.save_and_load, 1, model, payload)
    for saved, moved, loaded in zip(result["saved"], result["moved"], result["loaded"], strict=True):
        assert not same(moved, saved)
        assert same(loaded, saved)
    assert (tmp_path / "global_step_2" / "teacher").is_dir()
