"""The real worker: a process that loads goes on bit by bit like one that was not interrupted; NaN changes nothing."""

import pytest
import torch

from tests.training import scenarios, tiny_model
from tests.training.worker_process import run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.needs_cpu_set]
# A schedule that moves at every step, so that a forgotten one is seen.
SCHEDULE = ["actor_rollout_ref.actor.optim.lr_warmup_steps=4", "actor_rollout_ref.actor.optim.lr_scheduler_type=cosine"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.build(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    ("world", "teacher"),
    [
        (1, []),
        (2, []),
        (2, ["srpo.teacher.dtype=bfloat16"]),
        (1, ["srpo.teacher.dtype=bfloat16", "srpo.teacher.offload_policy=false", "srpo.teacher.param_offload=true"]),
    ],
)
def test_a_new_process_goes_on_bit_by_bit(model, world, teacher, tmp_path):
    folder, overrides = str(tmp_path / "global_step_2"), [*SCHEDULE, *teacher]
    whole = run_ranks(scenarios.train_from, world, model, {"folder": folder, "load": False}, overrides)
    resumed = run_ranks(scenarios.train_from, world, model, {"folder": folder, "load": True}, overrides)
    assert resumed["lr"] == whole["lr"]
    assert torch.equal(resumed["random"], whole["random"])
    assert bool(whole["rest"]) == ("srpo.teacher.dtype=bfloat16" in teacher)
    for part in ("actor", "teacher", "rest"):
        assert resumed[part].keys() == whole[part].keys()
        for name, value in whole[part].items():
            assert torch.equal(resumed[part][name], value), (part, name)
    for one, other in zip(resumed["optimizer"], whole["optimizer"], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize(("poisoned", "moves"), [((1, 2), False), ((1,), True)])
def test_a_gradient_of_nan_is_skipped_counted_and_not_averaged_into_the_teacher(model, poisoned, moves):
    result = run_ranks(scenarios.nonfinite_gradient, 1, model, {"poisoned": poisoned})
    assert result["updates"] == 2
    assert result["metrics"]["srpo/skipped_updates"] == len(poisoned)
    for part, before in zip(("actor", "teacher"), result["before"], strict=True):
        assert all(value.isfinite().all() for value in result[part].values())
        same = all(torch.equal(result[part][name], before[name]) for name in before)
        assert same != moves, part
