import pytest
from omegaconf import OmegaConf

from workflows.compose_config import ConfigError, compose_config, config_names


def test_a_config_is_composed_with_overrides_and_its_interpolations():
    config = compose_config("srpo_tiny.yaml", ["tiny.folder=/data", "srpo.topk=7"])
    assert config.data.train_files == "/data/train.parquet"
    assert config.actor_rollout_ref.srpo.topk == 7


def test_the_tiny_runs_dumps_are_in_its_own_folder_and_have_every_step():
    """Two runs on one model do not write over each other's, and a report knows the route of every rollout."""
    config = compose_config("srpo_tiny", ["trainer.default_local_dir=/runs/mine"])
    assert (config.srpo.dump_dir, config.srpo.dump_freq) == ("/runs/mine/teacher_prompts", 1)
    assert config.trainer.rollout_data_dir == "/runs/mine/rollouts"


def test_interpolations_can_stay():
    raw = OmegaConf.to_container(compose_config("srpo", resolve=False), resolve=False)
    assert raw["actor_rollout_ref"]["srpo"] == "${srpo}"


def test_a_file_of_ones_own_builds_on_ours(tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults: [srpo, {override platform: cpu}, _self_]\nsrpo: {topk: 7}\n")
    for name in ("mine", "mine.yaml"):
        config = compose_config(f"{tmp_path}/{name}", ["srpo.beta=3"])
        assert (config.srpo.topk, config.srpo.beta, config.trainer.device) == (7, 3, "cpu")
    with pytest.raises(ConfigError, match=f"no config '{tmp_path}/other'"):
        compose_config(f"{tmp_path}/other")


@pytest.mark.parametrize("name", config_names())
def test_every_config_composes(name):
    assert compose_config(name, ["platform=cpu"]).trainer.device == "cpu"


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("srop", [], "no config 'srop'; the configs are: advantage_mix"),
        ("srpo", ["data.train_batch_sise=3"], "data.train_batch_sise is no key: did you mean data.train_batch_size?"),
        ("srpo", ["srpo.topk=7", "srpo.divergance=jsd"], "srpo.divergance is no key: did you mean srpo.divergence?"),
        ("srpo", ["srpoo.divergence=jsd"], "srpoo.divergence is no key: did you mean srpo.divergence?"),
        ("srpo", ["~srpo.divergance"], "srpo.divergance is no key: did you mean srpo.divergence?"),
        ("srpo", ["train_batch_size=3"], "train_batch_size is no key: did you mean data.train_batch_size?"),
        ("srpo", ["platfrom=cpu"], "platfrom is no key: did you mean platform?"),
        ("srpo", ["trainer.lr=1"], " or actor_rollout_ref.actor.optim.lr"),
        ("srpo", ["srpo.lease.qqqqqq=1"], "srpo.lease.qqqqqq is no key: srpo.lease has "),
        ("srpo", ["platform=tpu"], "Could not find 'platform/tpu'"),
        ("srpo", ["data.train_files=[1"], "cannot be composed"),
        ("srpo", ["data.train_files=${oc.env:SRPO_UNSET}"], "SRPO_UNSET"),
    ],
)
def test_what_is_wrong_is_said(name, overrides, said):
    with pytest.raises(ConfigError) as error:
        compose_config(name, overrides)
    assert said in str(error.value)


def test_a_file_of_ones_own_with_a_key_that_is_none(tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults: [srpo, _self_]\nsrpo: {teacher: {ema_rat: 0.1}}\n")
    with pytest.raises(ConfigError, match=r"srpo\.teacher\.ema_rat is no key: did you mean srpo\.teacher\.ema_rate\?"):
        compose_config(f"{tmp_path}/mine")


@pytest.mark.parametrize(
    "word",
    [
        "actor_rollout_ref.model.override_config.attention_dropout=0",
        "actor_rollout_ref.rollout.engine_kwargs.vllm.swap_space=4",
        "actor_rollout_ref.actor.optim.override_optimizer_config.eps=1e-6",
        "ray_kwargs.ray_init.address=local",
    ],
)
def test_a_plus_is_advised_where_it_works(word):
    with pytest.raises(ConfigError) as error:
        compose_config("srpo", [word])
    assert f"add it by +{word}" in str(error.value)
    assert compose_config("srpo", [f"+{word}"])
