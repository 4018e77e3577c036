"""The teacher's weights where they rest in host memory and in bfloat16, in the real worker and alone."""

import pytest
import torch

from srpo_verl.core import join, split
from srpo_verl.training.worker import shards
from srpo_verl.training.worker.teacher_weights import TeacherWeights
from tests.training import naive_step, scenarios, tiny_model
from tests.training.worker_process import run_ranks

ON_DEVICE = ["srpo.teacher.offload_policy=false"]
BETWEEN_PASSES = [*ON_DEVICE, "srpo.teacher.param_offload=true"]
ACTOR_TOO = [*BETWEEN_PASSES, "actor_rollout_ref.actor.fsdp_config.param_offload=true"]
BFLOAT16 = ["srpo.teacher.dtype=bfloat16"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.build(tmp_path_factory.mktemp("model"))


@pytest.mark.needs_cpu_set
@pytest.mark.parametrize("overrides", [ON_DEVICE, BETWEEN_PASSES, ACTOR_TOO])
def test_ema_is_the_same_wherever_the_weights_rest(model, overrides):
    expected = run_ranks(scenarios.train, 1, model, {"steps": 2})["history"][-1]
    found = run_ranks(scenarios.train, 1, model, {"steps": 2}, overrides)["history"][-1]
    assert not found["teacher_gradients"]
    assert found["metrics"]["srpo/teacher_distance"] == expected["metrics"]["srpo/teacher_distance"] > 0
    for name, value in expected["teacher"].items():
        assert torch.equal(found["teacher"][name], value), name


@pytest.mark.needs_cpu_set
@pytest.mark.parametrize("rest", [[], BETWEEN_PASSES])
def test_ema_in_bfloat16_follows_the_closed_form_of_the_saved_actor_weights(model, rest):
    history = run_ranks(scenarios.train, 1, model, {"steps": 4}, [*BFLOAT16, *rest])["history"]
    initial = naive_step.load(model).state_dict()
    for name, last in history[-1]["teacher"].items():
        teacher = initial[name].double()
        bound = teacher.abs() * 2.0**-15
        for step in history:
            teacher = 0.95 * teacher + 0.05 * step["actor"][name].double()
            # What three bytes lose of the number in each step, which stays where the number itself becomes smaller.
            bound = 0.95 * bound + teacher.abs() * 2.0**-15 + 1e-9
            assert step["teacher"][name].dtype == torch.bfloat16
            whole = join(step["teacher"][name], step["rest"][name])
            assert bool(((whole.double() - teacher).abs() <= bound).all()), name
        # A byte of -128 is half a place: on which side of it the number lay is not to be seen in it.
        decided = step["rest"][name] > -128
        assert torch.equal(last[decided], whole.to(torch.bfloat16)[decided])
    assert all(step["metrics"]["srpo/teacher_distance"] > 0 for step in history)


@pytest.mark.needs_cpu_set
def test_two_ranks_bring_a_bfloat16_teacher_back(model, tmp_path):
    payload = {"folder": str(tmp_path / "global_step_2")}
    result = run_ranks(scenarios.save_and_load, 2, model, payload, BFLOAT16)
    for saved, moved, loaded in zip(result["saved"], result["moved"], result["loaded"], strict=True):
        assert any(not torch.equal(moved[name], saved[name]) for name in saved)
        assert all(torch.equal(loaded[name], saved[name]) for name in saved)
    files = sorted(path.name for path in (tmp_path / "global_step_2" / "teacher").glob("rest_*"))
    assert files == ["rest_world_size_2_rank_0.pt", "rest_world_size_2_rank_1.pt"]


@pytest.mark.needs_cpu_set
def test_a_frozen_teacher_in_bfloat16_is_the_rounded_initial_model(model):
    overrides = [*BFLOAT16, "srpo.teacher.kind=frozen"]
    last = run_ranks(scenarios.train, 1, model, {"steps": 2}, overrides)["history"][-1]
    initial = naive_step.load(model).state_dict()
    for name, value in last["teacher"].items():
        assert torch.equal(value, initial[name].to(torch.bfloat16))
    assert last["rest"] == {}


def linear(seed: int, dtype: torch.dtype = torch.float32) -> torch.nn.Linear:
    torch.manual_seed(seed)
    return torch.nn.Linear(40, 30).to(dtype).requires_grad_(False)


def test_copies_to_the_host_that_are_still_under_way_are_waited_for(monkeypatch):
    """verl's offload returns before the host has the weights: they are read after a synchronisation only."""
    actor, teacher, arriving = linear(0), linear(1), linear(2)

    class Device:
        def synchronize(self):
            actor.load_state_dict(arriving.state_dict())

    names = iter(["cuda", "cpu"])  # asked for: is there something to wait for, and where to move the weights
    monkeypatch.setattr(shards, "get_device_name", lambda: next(names))
    monkeypatch.setattr(shards, "get_torch_device", Device)
    assert TeacherWeights(teacher).follow(actor, torch.Tensor.copy_) == 0.0
    assert torch.equal(teacher.weight, arriving.weight)


@pytest.mark.needs_cpu_set
def test_the_distance_of_a_bfloat16_teacher_is_that_of_all_its_bits():
    actor, teacher = linear(0), linear(0, torch.bfloat16)
    weights = TeacherWeights(teacher)
    rounded = weights.follow(actor, None)
    assert 1e-4 < rounded < 2.0**-8
    assert weights.follow(actor, torch.Tensor.copy_) < 2.0**-15
    assert torch.equal(teacher.weight, split(actor.weight)[0])


def test_the_bits_that_a_checkpoint_lacks_are_asked_for(tmp_path):
    teacher = TeacherWeights(linear(0, torch.bfloat16))
    with pytest.raises(FileNotFoundError):
        teacher.load(str(tmp_path))
    TeacherWeights(linear(0)).load(str(tmp_path))
