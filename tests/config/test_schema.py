"""The settings: ranges, combinations, and that the YAML files are the methods they are named after."""

import pytest

from srpo_verl.config import SRPOConfig, settings
from tests.compose import compose

METHODS = {
    "srpo": {"route": "incorrect", "policy_gradient": "unrouted", "beta": 1.0, "advantage_mix": 0.0},
    "grpo": {"route": "none", "policy_gradient": "all", "advantage_mix": 0.0},
    "sdpo": {"route": "all", "policy_gradient": "none", "beta": 0.0, "advantage_mix": 0.0},
    "srpo_routing_only": {"route": "incorrect", "policy_gradient": "unrouted", "beta": 0.0},
    "advantage_mix": {"route": "all", "policy_gradient": "all", "advantage_mix": 0.1},
    "sdpo_correct_only": {"route": "correct", "policy_gradient": "none", "beta": 0.0},
    "sdpo_incorrect_only": {"route": "incorrect", "policy_gradient": "none", "beta": 0.0},
}


@pytest.mark.parametrize("name", METHODS)
def test_each_config_is_its_method(name):
    srpo = settings(compose(name).srpo)
    for key, value in METHODS[name].items():
        assert getattr(srpo, key) == value


@pytest.mark.parametrize(("name", "lr", "mini_batch"), [("srpo", 5e-6, 32), ("grpo", 1e-6, 8), ("sdpo", 1e-5, 32)])
def test_table_3(name, lr, mini_batch):
    config = compose(name)
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (actor.optim.lr, actor.ppo_mini_batch_size) == (lr, mini_batch)
    assert (config.data.train_batch_size, rollout.n, rollout.temperature) == (32, 8, 1.0)
    assert (config.data.max_prompt_length, config.data.max_response_length, rollout.max_model_len) == (
        2048,
        8192,
        18944,
    )
    assert (rollout.val_kwargs.n, rollout.val_kwargs.temperature, rollout.val_kwargs.top_p) == (16, 0.6, 0.95)
    assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.clip_ratio_c) == (0.2, 0.28, 3.0)
    assert (actor.optim.lr_warmup_steps, actor.optim.weight_decay, actor.optim.clip_grad) == (10, 0.01, 1.0)
    assert config.algorithm.rollout_correction.rollout_is == "token"
    assert config.algorithm.rollout_correction.rollout_is_threshold == 2.0
    assert (config.srpo.topk, config.srpo.alpha, config.srpo.teacher.ema_rate) == (100, 0.5, 0.05)


def test_the_worker_sees_the_same_settings():
    config = compose("srpo", ["srpo.topk=7", "srpo.teacher.kind=live"])
    assert settings(config.actor_rollout_ref.srpo) == settings(config.srpo)
    assert settings(config.srpo).topk == 7


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ({"threshold": 1.5}, "srpo.threshold=1.5 must be between 0 and 1"),
        ({"threshold": 11, "score_range": [0, 10]}, "srpo.threshold=11.0 must be between 0 and 10"),
        ({"threshold": -0.1}, "srpo.threshold"),
        ({"alpha": 2}, "srpo.alpha"),
        ({"topk": 0}, "srpo.topk=0 must be at least 1"),
        ({"inspect_groups": 0}, "srpo.inspect_groups=0 must be at least 1"),
        ({"topk": "many"}, "many"),
        ({"beta": -1}, "srpo.beta"),
        ({"beta": float("nan")}, "srpo.beta"),
        ({"teacher_gain_freq": -1}, "srpo.teacher_gain_freq=-1 must not be negative"),
        ({"route": "wrong"}, "srpo.route='wrong' is not one of incorrect"),
        ({"teacher": {"kind": "best"}}, "srpo.teacher.kind='best' is not one of ema"),
        ({"teacher": {"ema_rate": 1.1}}, "srpo.teacher.ema_rate"),
        ({"teacher": {"dtype": "float16"}}, "srpo.teacher.dtype=float16 must be float32 or bfloat16"),
        ({"fused_linear": True, "route": "none", "policy_gradient": "all"}, "is for a loss on logits"),
        ({"fused_linear": True, "teacher": {"kind": "trust_region"}}, "trust_region mixes logits"),
        ({"teacher": {"param_offload": True}}, "needs srpo.teacher.offload_policy=false"),
        ({"ratio_clip": 0}, "srpo.ratio_clip"),
        ({"route": "none", "policy_gradient": "none"}, "trains nothing"),
        ({"advantage_mix": 0.1, "route": "none"}, "needs a teacher"),
        ({"advantage_mix": 0.1}, "srpo.policy_gradient=all"),
        ({"top_k": 5}, "top_k"),
        ({"modulator": "evidence"}, "sees no token"),
        ({"modulator": "contrast", "asked": "all", "policy_gradient": "all"}, "set srpo.contrast=wrong_siblings"),
    ],
)
def test_bad_settings_are_refused_in_a_sentence(override, says):
    with pytest.raises(ValueError) as error:
        settings(override)
    assert says in str(error.value)


def test_defaults_are_the_paper():
    srpo = SRPOConfig()
    assert (srpo.route, srpo.topk, srpo.alpha, srpo.beta, srpo.add_tail) == ("incorrect", 100, 0.5, 1.0, True)
    assert (srpo.teacher.kind, srpo.teacher.ema_rate) == ("ema", 0.05)


def test_a_threshold_on_the_rewards_own_scale():
    assert settings({"score_range": [0, 10], "threshold": 5}).threshold == 5
    assert settings({"score_range": [-1, 1], "threshold": -0.5}).threshold == -0.5
    assert settings({"score_range": None, "threshold": 40}).threshold == 40
