import json

import pytest
from typer.testing import CliRunner

from workflows.cli import app
from workflows.compose_config import compose_config
from workflows.plan.advice import advise
from workflows.plan.gpus import gpu_of
from workflows.plan.plan import plan_config
from workflows.plan.settings import lengths_of, settings_of


def plan(*overrides, gpu="H20", name="srpo"):
    return plan_config(compose_config(name, ["trainer.n_gpus_per_node=8", *overrides]), gpu_of(gpu))


def test_the_papers_run_fits_on_its_machine():
    assert plan().misfits() == []
    assert advise(plan()) == []


@pytest.mark.parametrize(
    ("overrides", "gpu"),
    [
        (["actor_rollout_ref.actor.ppo_max_token_len_per_gpu=131072"], "H20"),
        (["actor_rollout_ref.rollout.gpu_memory_utilization=0.9"], "H20"),
        (["actor_rollout_ref.model.path=Qwen/Qwen3-32B"], "H20"),
        (["actor_rollout_ref.model.enable_gradient_checkpointing=false"], "L40S"),
    ],
)
def test_what_is_advised_fits_when_it_is_done(overrides, gpu):
    before = plan(*overrides, gpu=gpu)
    assert before.misfits()
    changes = advise(before)
    assert changes
    for change in changes:
        after = plan(*overrides, *change.overrides, gpu=gpu)
        assert after.misfits() == [] if change.fits else after.misfits()
        assert after.peak.total == pytest.approx(change.plan.peak.total)


def test_offloading_that_a_run_would_refuse_is_not_advised():
    too_much = [
        "actor_rollout_ref.model.path=Qwen/Qwen3-32B",
        "actor_rollout_ref.rollout.gpu_memory_utilization=0.9",
        "actor_rollout_ref.actor.fsdp_config.optimizer_offload=true",
    ]
    keys = {key.partition("=")[0] for change in advise(plan(*too_much)) for key in change.overrides}
    assert "actor_rollout_ref.actor.fsdp_config.param_offload" in keys
    uneven = advise(plan(*too_much, "trainer.n_gpus_per_node=7"))
    assert uneven
    assert not any("param_offload" in key for change in uneven for key in change.overrides)


@pytest.mark.parametrize(("rank", "even"), [(32, True), (12, False)])
def test_the_rows_of_an_adapter_are_shared_too(rank, even):
    adapter = [f"actor_rollout_ref.model.lora_rank={rank}", "trainer.n_gpus_per_node=8"]
    assert settings_of(compose_config("srpo_lora", adapter)).even_shards is even


def test_the_advised_budget_is_the_largest_that_fits():
    key = "actor_rollout_ref.actor.ppo_max_token_len_per_gpu"
    (change,) = [item for item in advise(plan(f"{key}=131072")) if item.overrides[0].startswith(key)]
    tokens = int(change.overrides[0].partition("=")[2])
    assert plan(f"{key}={tokens}").misfits() == []
    assert plan(f"{key}={tokens + 256}").misfits()


def test_a_cache_too_small_for_one_sequence_is_said():
    said = plan("actor_rollout_ref.rollout.gpu_memory_utilization=0.2").misfits()
    assert any("one sequence may have 18944" in text for text in said)
    said = plan("actor_rollout_ref.rollout.gpu_memory_utilization=0.1").misfits()
    assert any("do not fit into its share" in text for text in said)


def test_the_asynchronous_mode_is_not_taken_for_the_synchronous_one():
    assert plan().notes() == []
    asynchronous = plan("trainer.v1.trainer_mode=srpo_colocate_async")
    assert asynchronous.peak.total == plan().peak.total
    (note,) = asynchronous.notes()
    assert "generation takes less" in note
    assert asynchronous.as_dict()["notes"] == [note]
    with pytest.raises(ValueError, match="engines on GPUs of their own are not planned for"):
        plan("trainer.v1.trainer_mode=srpo_separate_async")


def test_lengths_stay_inside_their_limits():
    settings = settings_of(compose_config("srpo"))
    lengths = lengths_of(settings, response=6000, prompt=9000)
    assert lengths.prompt == 2048
    assert lengths.response * lengths.longest == 8192


@pytest.mark.parametrize(("model", "gpu"), [("Qwen3-1.7B", "RTX4090"), ("Qwen3-8B", "H100"), ("Qwen3-8B", "A100")])
def test_an_adapter_is_trained_on_one_gpu_with_the_defaults(model, gpu):
    config = compose_config("srpo_lora", [f"actor_rollout_ref.model.path={model}"])
    assert plan_config(config, gpu_of(gpu), flash_cross_entropy=True).misfits() == []
    whole = compose_config("srpo", [f"actor_rollout_ref.model.path={model}", "trainer.n_gpus_per_node=1"])
    assert plan_config(whole, gpu_of(gpu), flash_cross_entropy=True).misfits() != []


def test_ranks_that_share_rows_bound_the_longest_one():
    long = ["data.max_response_length=120000", "actor_rollout_ref.rollout.max_model_len=260000"]
    long += ["trainer.n_gpus_per_node=8"]
    alone, shared = (
        settings_of(compose_config("srpo", [*long, f"actor_rollout_ref.actor.ulysses_sequence_parallel_size={size}"]))
        for size in (1, 8)
    )
    assert alone.actor_tokens == 122_048
    assert shared.actor_tokens == 20_480
    assert shared.teacher_tokens == -(-(shared.max_teacher_prompt + 120_000) // 8)


def test_settings_that_are_not_planned_for():
    with pytest.raises(ValueError, match="adapters on embed_tokens are not planned for"):
        settings_of(compose_config("srpo_lora", ["actor_rollout_ref.model.target_modules=[q_proj,embed_tokens]"]))
    with pytest.raises(ValueError, match="no data for the GPU"):
        gpu_of("H21")
    with pytest.raises(ValueError, match="--gpu"):
        plan_config(compose_config("srpo"))


def test_the_command():
    run = CliRunner().invoke
    result = run(app, ["plan", "srpo", "--gpu", "h20", "--gpus", "8", "--json"])
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["parameters"] == 8_190_735_360
    assert max(moment["total"] for moment in found["moments"].values()) == pytest.approx(plan().peak.total)
    result = run(
        app, ["plan", "srpo", "actor_rollout_ref.rollout.gpu_memory_utilization=0.9", "--gpu", "H20", "--gpus", "8"]
    )
    assert result.exit_code == 1
    assert "it fits with any one of" in result.stdout
    assert run(app, ["plan", "srpo", "--gpu", "H21"]).exit_code == 2
    assert run(app, ["plan", "srop", "--gpu", "H20"]).exit_code == 2


def test_the_command_on_a_cpu():
    result = CliRunner().invoke(app, ["plan", "srpo", "platform=cpu", "--model", "SmolLM2-135M"])
    assert result.exit_code in (0, 1)
    assert "GiB of the trainer worker" in result.stdout


def test_engines_on_gpus_of_their_own_are_not_planned_for():
    with pytest.raises(ValueError, match="srpo_separate_async: engines on GPUs of their own"):
        plan("trainer.v1.trainer_mode=srpo_separate_async")


@pytest.mark.parametrize(
    "override",
    ["data.max_response_length=abc", "data.max_response_length=0", "actor_rollout_ref.rollout.n=0"],
)
def test_numbers_that_no_run_has_are_said(override):
    result = CliRunner().invoke(app, ["plan", "srpo", "--gpu", "H20", override])
    assert result.exit_code == 2
    assert f"{override}: it must be a whole number above 0" in result.output


def test_a_model_folder_with_any_name_and_its_mistakes(tmp_path):
    folder = tmp_path / "my model, a=b"
    folder.mkdir()
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}

    def planned(text):
        (folder / "config.json").write_text(text)
        return CliRunner().invoke(app, ["plan", "srpo", "--gpu", "H20", "--gpus", "1", "--model", str(folder)])

    assert planned(json.dumps({**shape, "vocab_size": 1000})).exit_code == 0
    for text, said in (
        ("[]", "it holds no object"),
        ("{", "cannot be read"),
        (json.dumps({**shape, "vocab_size": 1000, "hidden_size": 0}), "hidden_size is 0, not a number above 0"),
    ):
        result = planned(text)
        assert result.exit_code == 2
        assert said in result.output
