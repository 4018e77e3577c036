"""What is refused before Ray starts, and with which words."""

import json
import os
import shutil

import pandas as pd
import pytest
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY, register_trainer

from srpo_verl import register
from srpo_verl.config import FAMILY, method_settings, settings
from srpo_verl.launch import hardware, run_start
from srpo_verl.launch.preflight import RAY_HISTORY, Preflight, check
from srpo_verl.training.durable.run_record import differences_from_paper
from srpo_verl.variants import names
from tests.compose import compose
from tests.training import tiny_model


@pytest.fixture(autouse=True)
def laptop(monkeypatch):
    """The machine that these configs are for; `test_hardware.py` has others."""
    monkeypatch.setattr(hardware, "this_machine", lambda config: hardware.Machine(gpus=0, cpu_set=True, cpus=16))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Overrides of a config without problems."""
    folder = tmp_path_factory.mktemp("preflight")
    model = tiny_model.build(folder / "model")
    row = {"data_source": "x", "prompt": [{"role": "user", "content": "?"}], "reward_model": {"ground_truth": "1"}}
    frame = pd.DataFrame([row] * 40)
    frame.to_parquet(folder / "data.parquet")
    frame.drop(columns="reward_model").to_parquet(folder / "no_reward.parquet")
    frame.head(0).to_parquet(folder / "empty.parquet")
    (folder / "broken.parquet").write_bytes(b"PAR1 and then nothing")
    described = json.loads((model / "config.json").read_text())
    shutil.copytree(model, folder / "vision")
    (folder / "vision" / "config.json").write_text(json.dumps({**described, "vision_config": {"depth": 2}}))
    overrides = {
        "platform": "cpu",
        "data.train_files": folder / "data.parquet",
        "data.val_files": folder / "data.parquet",
        "actor_rollout_ref.model.path": model,
        "data.max_prompt_length": 64,
        "data.max_response_length": 64,
    }
    return folder, overrides


def problems_and_warnings(good, **changes):
    folder, overrides = good
    merged = {**overrides, **{key.replace("__", "."): value for key, value in changes.items()}}
    lines = [f"{key}={str(value).replace('FOLDER', str(folder))}" for key, value in merged.items()]
    return check(compose("srpo", lines))


@pytest.mark.parametrize("name", FAMILY)
def test_every_method_of_another_paper_passes(name, good):
    folder, overrides = good
    reference = folder / "reference.parquet"
    if not reference.exists():
        frame = pd.read_parquet(overrides["data.train_files"])
        frame["extra_info"] = [{"solution": "because"}] * len(frame)
        frame.to_parquet(reference)
    merged = {**overrides, "data.train_files": reference}
    config = compose(name, [f"{key}={value}" for key, value in merged.items()])
    assert check(config)[0] == []
    assert config.trainer.experiment_name == name
    assert settings({**method_settings(name), "poll_interval": 0.1}) == settings(config.srpo)


def test_a_reference_that_the_data_lack_is_refused(good):
    problems = problems_and_warnings(good, srpo__providers="[reference]")[0]
    assert any("lacks the column extra_info, which srpo.providers=reference reads" in problem for problem in problems)


@pytest.mark.parametrize("providers", ["[sibling]", "[shortest_sibling]", "[random_sibling,siblings]"])
def test_one_rollout_has_no_sibling_whichever_is_shown(good, providers):
    problems, _ = problems_and_warnings(good, srpo__providers=providers, actor_rollout_ref__rollout__n=1)
    assert any("needs a sibling" in problem for problem in problems), problems


def test_several_runs_in_one_command_are_refused(good, capsys):
    with pytest.raises(SystemExit):
        Preflight().on_multirun_start(compose("srpo", []))
    assert "one run is started at a time" in capsys.readouterr().err


def test_a_good_config_passes(good):
    assert problems_and_warnings(good)[0] == []


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("actor_rollout_ref__model__use_remove_padding", "false", "srpo.fused_linear=true takes packed rows"),
        ("actor_rollout_ref__actor__calculate_sum_pi_squared", "true", "set one of them to false"),
    ],
)
def test_what_needs_logits_is_refused_where_there_are_none(good, key, value, says):
    assert problems_and_warnings(good, srpo__fused_linear="true")[0] == []
    (problem,) = problems_and_warnings(good, srpo__fused_linear="true", **{key: value})[0]
    assert says in problem


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("actor_rollout_ref__model__path", "FOLDER/nothing", "there is no such folder"),
        ("actor_rollout_ref__model__path", "FOLDER/vision", "is a vision model"),
        ("actor_rollout_ref__hybrid_engine", "false", "on the GPUs that train"),
        ("data__train_files", "FOLDER/nothing.parquet", "there is no such file"),
        ("data__train_files", "FOLDER/no_reward.parquet", "lacks the column(s) reward_model"),
        ("data__val_files", "FOLDER/broken.parquet", "cannot be read as parquet"),
        ("data__train_files", "FOLDER/empty.parquet", "has no rows"),
        ("data__train_batch_size", 64, "less than data.train_batch_size=64"),
        ("srpo__threshold", 1.5, "must be between 0 and 1"),
        ("srpo__topk", 100_000, "more than the model's vocabulary"),
        ("actor_rollout_ref__rollout__n", 1, "needs a sibling"),
        ("actor_rollout_ref__model__use_fused_kernels", "true", "never builds the logits"),
        ("actor_rollout_ref__model__use_fused_kernels", "true", "srpo.fused_linear=true for a loss that needs none"),
        ("actor_rollout_ref__actor__strategy", "fsdp", "strategy=fsdp2"),
        ("actor_rollout_ref__actor__ulysses_sequence_parallel_size", 2, "needs GPUs"),
        ("actor_rollout_ref__actor__loss_agg_mode", "seq-mean-token-sum", "set it to token-mean"),
        ("actor_rollout_ref__actor__pad_to_length", "true", "refuses it where a loss reads the logits"),
        ("actor_rollout_ref__actor__fsdp_config__pad_to_length", "true", "pad_to_length"),
        ("algorithm__rollout_correction__bypass_mode", "true", "bypass_mode"),
        ("actor_rollout_ref__rollout__checkpoint_engine__update_weights_bucket_megabytes", 0, "_megabytes=1"),
        ("actor_rollout_ref__rollout__calculate_log_probs", "false", "calculate_log_probs=true"),
        ("algorithm__adv_estimator", "gae", "set it to srpo"),
        ("platform", "gpu", "add platform=cpu"),
        ("trainer__v1__trainer_mode", "sync", "trainer_mode=sync must be one of srpo"),
        ("distillation__enabled", "true", "verl's own distillation"),
    ],
)
def test_refused_in_a_sentence(good, key, value, says):
    problems, _ = problems_and_warnings(good, **{key: value})
    assert any(says in problem for problem in problems), problems


def test_seeds_of_requests_are_vllms(good):
    found = problems_and_warnings(good, srpo__seeded_rollouts="true", actor_rollout_ref__rollout__name="sglang")[0]
    assert any("not sglang" in problem for problem in found)


def test_one_rollout_per_prompt_is_enough_where_something_else_teaches(good):
    problems, _ = problems_and_warnings(
        good, actor_rollout_ref__rollout__n=1, srpo__providers="[feedback]", data__train_batch_size=16
    )
    assert problems == []


def test_a_column_that_a_provider_reads_must_be_there(good):
    register.provider("hint of the preflight", columns=("hint",))(lambda rollouts, srpo: [None] * len(rollouts))
    problems, _ = problems_and_warnings(good, srpo__providers="['hint of the preflight']")
    assert any("lacks the column hint, which srpo.providers=hint of the preflight reads" in line for line in problems)


def test_a_subclass_of_the_trainer_is_welcome(good):
    from srpo_verl.training.step.trainer import SRPOTrainer

    class Mine(SRPOTrainer):
        """Registered with verl's own decorator here; `register.trainer` is for packages."""

    register_trainer("mine of the preflight")(Mine)
    try:
        assert problems_and_warnings(good, trainer__v1__trainer_mode="'mine of the preflight'")[0] == []
    finally:
        del TRAINER_REGISTRY["mine of the preflight"]


def test_an_unknown_variant_is_refused_by_name(good):
    problems, _ = problems_and_warnings(good, srpo__divergence="skew")
    assert problems == ["srpo.divergence='skew' is not one of jsd" + "".join(f", {n}" for n in names("divergence")[1:])]


def test_differences_from_the_paper_can_be_written_down():
    differing = differences_from_paper(compose("srpo", ["srpo.providers=[sibling,feedback]"]))
    assert json.loads(json.dumps(differing))["srpo.providers"] == [["sibling"], ["sibling", "feedback"]]


def test_short_max_model_len_is_warned_with_the_number(good):
    _, warnings = problems_and_warnings(good, actor_rollout_ref__rollout__max_model_len=256)
    assert any("limited to 192 tokens" in line and "max_model_len=704" in line for line in warnings), warnings


def test_more_positions_than_the_model_has_is_warned(good):
    _, warnings = problems_and_warnings(good, data__max_response_length=900)
    assert any("the model has 1024 positions" in line for line in warnings), warnings


def test_no_importance_sampling_is_warned(good):
    _, warnings = problems_and_warnings(good, algorithm__rollout_correction__rollout_is="null")
    assert any("no truncated importance sampling" in line for line in warnings), warnings


def test_differences_from_the_paper_are_named():
    assert differences_from_paper(compose("srpo")) == {}
    assert differences_from_paper(compose("srpo", ["srpo.topk=20"])) == {"srpo.topk": (100, 20)}
    assert "srpo.route" in differences_from_paper(compose("grpo"))


def test_what_ray_remembers_is_bounded_unless_the_user_says_otherwise(good, monkeypatch):
    _, overrides = good
    config = compose("srpo", [f"{key}={value}" for key, value in overrides.items()])
    [(name, value)] = RAY_HISTORY.items()
    monkeypatch.setenv("SRPO_RUN_ID", "")
    monkeypatch.setattr(run_start, "take_folder", lambda config, srpo: None)  # nobody writes in it here
    monkeypatch.setattr(run_start, "heed_signals", lambda lease, grace: None)
    for before, after in ((None, value), ("77", "77")):
        monkeypatch.setenv(name, before or "")
        if before is None:
            monkeypatch.delenv(name)
        Preflight().on_job_start(config)
        assert os.environ[name] == after
