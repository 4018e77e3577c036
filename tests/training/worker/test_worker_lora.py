"""LoRA in the real worker: each teacher is what its definition says of the saved weights, on one rank and on two."""

import pytest
import torch

from srpo_verl.config import SRPOConfig
from tests.training import lora, naive_step, scenarios, tiny_model
from tests.training.lora import LORA
from tests.training.rows import make_batch
from tests.training.worker_process import run_ranks

pytestmark = pytest.mark.needs_cpu_set
EXACT = "srpo.teacher.lora_ema=exact"
MODULE = "srpo.variant_modules=[tests.training.variants_for_tests]"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.build(tmp_path_factory.mktemp("model"))


def train(model, *overrides, steps=4, world=1):
    return run_ranks(lora.train, world, model, {"steps": steps}, [*LORA, *overrides])


def check_answers(found, model, teacher, student=None):
    """The fields of the last step, against logits of the teacher's weights; halfway to the student's if given."""
    batch = make_batch(vocabulary=scenarios.VOCABULARY, srpo=SRPOConfig(topk=8))
    models = [naive_step.load(model, weights) for weights in (teacher, student) if weights is not None]
    for row in batch.plan.routed_rows():
        with torch.no_grad():
            prompt, response = batch.teacher_prompts[row], batch.responses[row]
            logits = [naive_step.response_logits(m, prompt, response) for m in models]
        q = torch.stack(logits).mean(0).log_softmax(-1)
        entropy, ids = found["fields"]["entropy"][row].double(), found["fields"]["topk_ids"][row].long()
        torch.testing.assert_close(entropy, -(q.exp() * q).sum(-1), atol=1e-4, rtol=1e-4)
        log_probs = found["fields"]["teacher_log_probs"][row].double()
        torch.testing.assert_close(log_probs, q.gather(-1, ids), atol=1e-4, rtol=1e-4)


def check_distance(record, teacher, actor):
    assert record["metrics"]["srpo/teacher_distance"] == pytest.approx(lora.distance(teacher, actor), rel=1e-4)


@pytest.mark.parametrize("world", [1, 2])
def test_exact_follows_the_closed_form_of_the_merged_weights(model, world):
    found = train(model, EXACT, world=world)
    teacher = lora.merged(model, found["initial"])
    for record in found["history"]:
        actor = lora.merged(model, record["actor"])
        teacher = {name: 0.95 * teacher[name] + 0.05 * actor[name] for name in teacher}
        assert record["teacher"].keys() == teacher.keys()
        for name, value in record["teacher"].items():
            torch.testing.assert_close(value.double(), teacher[name], atol=1e-6, rtol=1e-5)
        check_distance(record, teacher, actor)
        assert not record["teacher_gradients"]
    check_answers(found, model, teacher)


@pytest.mark.parametrize("world", [1, 2])
def test_an_adapter_follows_factor_by_factor(model, world):
    found = train(model, world=world)
    teacher = {name: value.double() for name, value in lora.factors(found["initial"]).items()}
    for record in found["history"]:
        factors = lora.factors(record["actor"])
        teacher = {name: 0.95 * teacher[name] + 0.05 * factors[name].double() for name in teacher}
        assert record["teacher"].keys() == teacher.keys()
        for name, value in record["teacher"].items():
            torch.testing.assert_close(value.double(), teacher[name], atol=1e-6, rtol=1e-5)
        check_distance(record, lora.merged(model, teacher), lora.merged(model, record["actor"]))
        assert not record["teacher_gradients"]
    check_answers(found, model, lora.merged(model, teacher))


@pytest.mark.parametrize("world", [1, 2])
def test_frozen_is_the_model_without_the_adapter_and_takes_no_memory(model, world):
    found = train(model, "srpo.teacher.kind=frozen", world=world, steps=2)
    base = lora.merged(model, {})
    check_answers(found, model, base)
    assert found["teacher"] == {}
    check_distance(found["history"][-1], base, lora.merged(model, found["actor"]))
    if world == 1:
        live = train(model, "srpo.teacher.kind=live", steps=1)
        assert live["teacher"] is None
        check_answers(live, model, lora.merged(model, live["actor"]))
        assert found["held"] == live["held"]
        # The measure sees a second set of weights where there is one.
        assert train(model, EXACT, steps=0)["held"] == live["held"] + sum(value.numel() for value in base.values())


@pytest.mark.parametrize("world", [1, 2])
def test_trust_region_is_both_out_of_one_model(model, world):
    found = train(model, "srpo.teacher.kind=trust_region", world=world, steps=2)
    check_answers(found, model, lora.merged(model, {}), lora.merged(model, found["actor"]))
    assert found["teacher"] == {}


@pytest.mark.parametrize("kind", ["frozen", "trust_region", "ema"])
def test_an_adapter_that_was_there_before_is_part_of_the_initial_weights(model, kind, tmp_path):
    factors = lora.write_adapter(model, tmp_path / "adapter")
    overrides = [f"actor_rollout_ref.model.lora_adapter_path={tmp_path / 'adapter'}", f"srpo.teacher.kind={kind}"]
    found = train(model, *overrides, "srpo.teacher.ema_rate=0", steps=2)
    assert all(torch.equal(found["teacher"][name], factors[name]) for name in factors)
    student = lora.merged(model, found["actor"])
    assert lora.distance(lora.merged(model, factors), student) > 1e-3
    check_answers(found, model, lora.merged(model, factors), student if kind == "trust_region" else None)


@pytest.mark.parametrize("overrides", [[], [EXACT], ["srpo.teacher.kind=frozen"], ["srpo.teacher.kind=live"]])
def test_the_gradient_is_that_of_the_adapter_with_the_teacher_as_a_constant(model, overrides):
    found = run_ranks(lora.gradients, 1, model, {}, [*LORA, *overrides])
    student = lora.adapted(model, found["actor"])
    weights = found["teacher"]
    if overrides != [EXACT]:
        weights = lora.merged(model, found["actor"] if weights is None else weights)
    batch = make_batch(vocabulary=scenarios.VOCABULARY, srpo=SRPOConfig(topk=8))
    loss, _ = naive_step.loss(student, naive_step.load(model, weights), batch, k=8)
    loss.backward()
    expected = {name: p.grad for name, p in student.named_parameters() if p.grad is not None}
    assert found["gradient"].keys() == expected.keys() == lora.factors(found["actor"]).keys()
    largest = max(float(value.abs().max()) for value in expected.values())
    for name, value in found["gradient"].items():
        torch.testing.assert_close(value.double(), expected[name], atol=1e-4 * largest, rtol=1e-3)
    assert not found["teacher_gradients"]


@pytest.mark.parametrize("kind", ["frozen", "trust_region", "ema"])
def test_the_adapter_is_trained_whoever_has_the_first_pass(model, kind):
    found = run_ranks(lora.teacher_first, 1, model, {}, [*LORA, f"srpo.teacher.kind={kind}"])
    for name, value in lora.factors(found["actor"]).items():
        assert not torch.equal(value, found["initial"][name]), name
    assert all(torch.equal(v, found["initial"][n]) for n, v in found["actor"].items() if ".lora_" not in n)


@pytest.mark.parametrize("kind", ["ema", "frozen"])
def test_a_teachers_pass_that_fails_leaves_the_student_as_it_was(model, kind):
    found = run_ranks(lora.failed_pass, 1, model, {}, [*LORA, f"srpo.teacher.kind={kind}"])
    assert found["error"] == "in the middle of the teacher's pass"
    (weights, log_probs), (after, log_probs_after) = found["before"], found["after"]
    assert any(not torch.equal(found["meanwhile"][n], weights[n]) for n in weights) == (kind == "ema")
    assert all(torch.equal(after[name], weights[name]) for name in weights)
    assert torch.equal(log_probs_after, log_probs)


@pytest.mark.parametrize("overrides", [[], [EXACT]])
def test_a_teacher_of_ones_own_follows_in_either_form(model, overrides):
    found = train(model, *overrides, MODULE, "srpo.teacher.kind='copies every second step'")
    expected = None
    for step, record in enumerate(found["history"]):
        if step % 2 == 0:
            expected = lora.merged(model, record["actor"]) if overrides else lora.factors(record["actor"])
        for name, value in record["teacher"].items():
            torch.testing.assert_close(value.double(), expected[name].double(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("world", [1, 2])
def test_rollouts_get_what_the_actor_is(model, world):
    """Merged, all weights in float32 under their own names; apart, the factors as peft names them."""
    found = run_ranks(lora.handed_over, world, model, {}, LORA)
    expected = lora.merged(model, found["actor"])
    assert found["described"] is None
    assert found["given"].keys() == expected.keys()
    for name, value in found["given"].items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), expected[name], atol=1e-6, rtol=1e-5)
    apart = run_ranks(lora.handed_over, world, model, {}, [*LORA, "actor_rollout_ref.model.lora.merge=false"])
    factors = {name.replace(".default.", "."): v for name, v in lora.factors(apart["actor"]).items()}
    assert (apart["described"]["r"], apart["described"]["lora_alpha"]) == (lora.RANK, lora.ALPHA)
    assert apart["given"].keys() == factors.keys()
    assert all(torch.equal(apart["given"][name], factors[name]) for name in factors)


def goes_on(model, world, folder, overrides):
    """A run of two steps, a save, and two more; against a new process that loads and does the last two."""
    payload = {"folder": str(folder)}
    whole = run_ranks(scenarios.train_from, world, model, {**payload, "load": False}, [*LORA, *overrides])
    resumed = run_ranks(scenarios.train_from, world, model, {**payload, "load": True}, [*LORA, *overrides])
    for part in ("actor", "teacher"):
        assert whole[part].keys() == resumed[part].keys()
        for name, value in whole[part].items():
            assert torch.equal(resumed[part][name], value), (part, name)
    for one, other in zip(resumed["optimizer"], whole["optimizer"], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("overrides", [[], [EXACT]])
def test_a_new_process_goes_on_bit_by_bit(model, world, overrides, tmp_path):
    goes_on(model, world, tmp_path / "global_step_2", overrides)


@pytest.mark.slow
def test_a_checkpoint_of_the_adapter_alone_goes_on_but_not_in_the_other_form(model, tmp_path):
    folder = tmp_path / "global_step_2"
    goes_on(model, 1, folder, ["+actor_rollout_ref.actor.checkpoint.save_lora_only=true"])
    with pytest.raises(Exception, match="No such file"):
        run_ranks(scenarios.train_from, 1, model, {"folder": str(folder), "load": True}, [*LORA, EXACT])
    for shard in (folder / "teacher").glob("adapter*"):
        shard.unlink()
    with pytest.raises(Exception, match=r"written with another srpo\.teacher\.lora_ema than adapter"):
        run_ranks(scenarios.train_from, 1, model, {"folder": str(folder), "load": True}, LORA)
