"""Numbers of GPUs that verl cannot offload weights with are refused before Ray starts."""

import pytest

from srpo_verl.config import settings
from srpo_verl.launch import shards
from tests.compose import compose

QWEN3_8B = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
ACTOR = "actor_rollout_ref.actor.fsdp_config.param_offload"
REFERENCE = "actor_rollout_ref.ref.fsdp_config.param_offload"
TEACHER = ["srpo.teacher.param_offload=true", "srpo.teacher.offload_policy=false"]


def problems(*overrides, gpus, model=QWEN3_8B):
    config = compose("srpo", [f"trainer.n_gpus_per_node={gpus}", "trainer.nnodes=1", *overrides])
    return list(shards.problems(config, settings(config.srpo), model))


@pytest.mark.parametrize(
    ("gpus", "overrides"),
    [
        (7, []),
        (8, [f"{ACTOR}=true", *TEACHER]),
        (7, [f"{ACTOR}=true", "actor_rollout_ref.actor.fsdp_config.offload_policy=true"]),
        (7, [f"{REFERENCE}=true"]),  # no reference in this run
        (7, [*TEACHER, "srpo.teacher.kind=live"]),  # no weights of its own
        (7, [f"{ACTOR}=true", "platform=cpu"]),
        (6, [f"{ACTOR}=true", "actor_rollout_ref.actor.fsdp_config.fsdp_size=2"]),
        (8, [f"{ACTOR}=true", "actor_rollout_ref.model.lora_rank=16"]),
    ],
)
def test_what_works_passes(gpus, overrides):
    assert problems(*overrides, gpus=gpus) == []


def test_an_unknown_model_passes():
    assert problems(f"{ACTOR}=true", gpus=7, model={}) == []


@pytest.mark.parametrize(
    ("gpus", "overrides", "says"),
    [
        (7, [f"{ACTOR}=true"], [f"{ACTOR}=true", "7 GPUs", "vocab_size=151936", "hidden_size=4096"]),
        (3, [f"{ACTOR}=true"], ["num_key_value_heads x head_dim=1024", "fsdp_config.offload_policy=true"]),
        (5, TEACHER, ["srpo.teacher.param_offload=true", "srpo.teacher.offload_policy=true"]),
        (3, [f"{REFERENCE}=true", "actor_rollout_ref.actor.use_kl_loss=true"], [f"{REFERENCE}=true", "3 GPUs"]),
        (8, [f"{ACTOR}=true", "actor_rollout_ref.model.lora_rank=4"], ["(lora_rank=4)"]),
    ],
)
def test_refused_in_a_sentence(gpus, overrides, says):
    (problem,) = problems(*overrides, gpus=gpus)
    for part in says:
        assert part in problem


def test_rows_that_divide_are_not_named():
    (problem,) = problems(f"{ACTOR}=true", gpus=3)
    assert "intermediate_size" not in problem
