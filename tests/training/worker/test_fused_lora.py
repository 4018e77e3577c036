"""An adapter trained without logits: each kind of teacher that is the actor's own model, against the plain path."""

import pytest
import torch

from tests.training import lora, tiny_model
from tests.training.worker_process import run_ranks

pytestmark = pytest.mark.needs_cpu_set
LORA = [
    "actor_rollout_ref.model.lora_rank=4",
    "actor_rollout_ref.model.lora_alpha=8",
    "actor_rollout_ref.model.target_modules=all-linear",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.build(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("kind", ["ema", "frozen"])
def test_updates_are_those_of_the_plain_path(model, kind):
    def last(setting):
        overrides = [*LORA, f"srpo.teacher.kind={kind}", setting]
        return run_ranks(lora.train_a_given_adapter, 1, model, {"steps": 2}, overrides)["history"][-1]

    plain, found = last("srpo.one_pass=false"), last("srpo.fused_linear=true")
    for part in ("actor", "teacher"):
        for name, value in (plain[part] or {}).items():
            torch.testing.assert_close(found[part][name], value, atol=1e-4, rtol=1e-3)
    for name in ("srpo/divergence", "srpo/sdpo_loss", "srpo/teacher_distance"):
        assert found["metrics"][name] == pytest.approx(plain["metrics"][name], rel=1e-3, abs=1e-6), name
