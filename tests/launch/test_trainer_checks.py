"""What a trainer mode asks of a config, said before Ray starts; each refusal is mended by what it says."""

import pytest

from srpo_verl.config import settings
from srpo_verl.launch.hardware import needed_cpus, wanted_gpus
from srpo_verl.launch.trainer_checks import problems, warnings
from srpo_verl.training.step import async_trainers  # noqa: F401  (registers the modes)
from tests.compose import compose

GOOD = {
    "srpo": [],
    "srpo_colocate_async": [],
    "srpo_separate_async": [
        "trainer.v1.separate_async.parameter_sync_step=2",
        "actor_rollout_ref.actor.ppo_mini_batch_size=16",
        "actor_rollout_ref.rollout.nnodes=1",
        "actor_rollout_ref.rollout.n_gpus_per_node=4",
        "actor_rollout_ref.rollout.checkpoint_engine.backend=nccl",
    ],
}


def config_of(mode, *changes):
    return compose("srpo", [f"trainer.v1.trainer_mode={mode}", *GOOD.get(mode, []), *changes])


def found(mode, *changes):
    config = config_of(mode, *changes)
    return list(problems(config, settings(config.srpo)))


@pytest.mark.parametrize("mode", GOOD)
def test_good_ones_pass(mode):
    assert found(mode) == []
    assert list(warnings(config_of(mode))) == []


def test_on_a_cpu_sampling_and_training_take_turns():
    assert found("srpo_colocate_async", "platform=cpu") == []


SEPARATE = "srpo_separate_async"


@pytest.mark.parametrize(
    ("mode", "change", "says"),
    [
        ("sync", "data.seed=1", "must be one of srpo, srpo_colocate_async, srpo_separate_async"),
        ("srpo", "trainer.use_v1=false", "trainer.use_v1 true"),
        ("srpo", "actor_rollout_ref.hybrid_engine=false", "on the GPUs that train; set it to true"),
        ("srpo_colocate_async", "actor_rollout_ref.hybrid_engine=false", "on the GPUs that train; set it to true"),
        ("srpo_colocate_async", "srpo.seeded_rollouts=true", "set it to false, or the mode to srpo"),
        (SEPARATE, "srpo.seeded_rollouts=true", "set it to false, or the mode to srpo"),
        ("srpo", "actor_rollout_ref.rollout.tensor_model_parallel_size=3", "do not divide the 8 of trainer.nnodes"),
        (SEPARATE, "platform=cpu", "each of those needs GPUs: with platform=cpu take srpo_colocate_async"),
        (SEPARATE, "actor_rollout_ref.rollout.checkpoint_engine.backend=naive", "set it to nccl"),
        (SEPARATE, "actor_rollout_ref.rollout.nnodes=0", "set both to 1 or more"),
        (SEPARATE, "actor_rollout_ref.model.lora_rank=8", "would sample from the base model; set it to true"),
        (SEPARATE, "actor_rollout_ref.actor.ppo_mini_batch_size=32", "(2 x 32): each mini-batch is sampled"),
    ],
)
def test_refused_in_a_sentence(mode, change, says):
    (problem,) = found(mode, change)
    assert says in problem


def test_engines_of_their_own_may_be_the_only_ones():
    assert found(SEPARATE, "actor_rollout_ref.hybrid_engine=false") == []


def test_gpus_and_cpus_of_the_engines_count():
    assert wanted_gpus(config_of("srpo_colocate_async")) == 8
    assert wanted_gpus(config_of(SEPARATE)) == 12
    assert needed_cpus(config_of(SEPARATE)) - needed_cpus(config_of("srpo")) == 3 * 4


def test_stale_rollouts_without_a_correction_are_warned_of():
    without = "algorithm.rollout_correction.rollout_is=null"
    (line,) = warnings(config_of("srpo_colocate_async", without))
    assert "nothing corrects for the older weights" in line
    assert list(warnings(config_of("srpo", without))) == []
