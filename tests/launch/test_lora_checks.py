"""What is refused of LoRA before Ray starts, and what is not."""

import json
import re

import pytest

from srpo_verl.config import settings
from srpo_verl.launch.lora_checks import problems, warnings
from tests.compose import compose

MODEL = "actor_rollout_ref.model"


def found(*overrides, config="srpo_lora", platform="cpu"):
    composed = compose(config, [f"platform={platform}", *overrides])
    return list(problems(composed, settings(composed.srpo)))


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["srpo.teacher.lora_ema=exact", "srpo.teacher.path=some/model"],
        ["srpo.teacher.kind=frozen", "srpo.teacher.path=some/model"],
        ["srpo.route=none", "srpo.policy_gradient=all"],
    ],
)
def test_the_config_and_its_teachers_pass(platform, overrides):
    assert found(*overrides, platform=platform) == []


def test_all_weights_pass_whatever_the_other_keys_say():
    assert found(f"{MODEL}.lora.merge=false", "srpo.teacher.path=some/model", config="srpo") == []


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ([f"{MODEL}.lora.rank=8"], "is Megatron's key: set actor_rollout_ref.model.lora_rank=8"),
        ([f"{MODEL}.lora_rank=0", f"{MODEL}.lora_adapter_path=/some"], "is not read while lora_rank is 0"),
        ([f"{MODEL}.lora_adapter_path=/nothing"], "has no adapter_config.json"),
        ([f"{MODEL}.lora.merge=false"], "set actor_rollout_ref.model.lora.merge=true, as platform=cpu does"),
        (
            ["actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]"],
            "under names of peft's that no model has",
        ),
        (["srpo.teacher.path=some/model"], "set srpo.teacher.lora_ema=exact"),
    ],
)
def test_refused_in_a_sentence(overrides, says):
    (sentence,) = found(*overrides)
    assert says in sentence


def test_an_adapter_alone_needs_a_model_in_vllm():
    layered = "actor_rollout_ref.rollout.layered_summon=true"
    assert found(layered, platform="gpu") == []
    (sentence,) = found(layered, "actor_rollout_ref.rollout.load_format=dummy", platform="gpu")
    assert "set actor_rollout_ref.rollout.load_format=safetensors" in sentence


@pytest.mark.parametrize(
    ("described", "says"),
    [
        ({"r": 32, "bias": "none", "use_dora": False, "rank_pattern": {}}, None),
        ({"r": 8}, "lora_rank=32, but the adapter in .* has rank 8"),
        ({"r": 32, "use_rslora": True}, "has use_rslora, which verl's checkpoint does not say"),
    ],
)
def test_an_adapter_that_is_continued_is_looked_at(tmp_path, described, says):
    (tmp_path / "adapter_config.json").write_text(json.dumps(described))
    sentences = found(f"{MODEL}.lora_adapter_path={tmp_path}")
    assert len(sentences) == (says is not None)
    assert all(re.search(says, sentence) for sentence in sentences)


def test_a_damaged_description_of_an_adapter_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{")
    (sentence,) = found(f"{MODEL}.lora_adapter_path={tmp_path}")
    assert "adapter_config.json is no JSON" in sentence


def test_an_adapter_in_bfloat16_is_warned_of():
    assert list(warnings(compose("srpo_lora"))) == []
    narrow = "actor_rollout_ref.actor.fsdp_config.model_dtype=bf16"
    (sentence,) = warnings(compose("srpo_lora", [narrow]))
    assert "an update of less than 1/256 of a weight is lost" in sentence
    assert list(warnings(compose("srpo", [narrow]))) == []
