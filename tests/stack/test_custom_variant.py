"""A package of variants, installed by pip, on the real stack: every kind at once, a trainer of its own, and a reward
function in TRL's form.
"""

import json
import math
import os

import pandas as pd
import pytest

from tests.examples.variant_package import environment, install
from tests.patience import STACK_TEST
from tests.stack.launch import run

pytestmark = [pytest.mark.stack, pytest.mark.timeout(STACK_TEST)]


def test_two_steps_with_every_kind_of_variant(stack_model, tmp_path):
    site = install(tmp_path / "package")
    data = tmp_path / "data.parquet"
    records = [
        {
            "data_source": "checksum",
            "prompt": [{"role": "user", "content": f"{n} + {n}?"}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": str(2 * n)},
            "extra_info": {"index": n, "split": "train", "solution": f"twice {n} is {2 * n}"},
        }
        for n in range(32)
    ]
    pd.DataFrame(records).to_parquet(data)
    overrides = [
        f"data.train_files={data}",
        "srpo.route=hard",
        "srpo.providers=[solution,sibling]",
        "srpo.divergence=skew_kl",
        "srpo.options.skew_kl.share=0.2",
        "srpo.weighting=gap",
        "srpo.advantage=median",
        "srpo.teacher.kind=every_ten",
        "srpo.metrics=[repetition]",
        "srpo.teacher.template='{prompt} <<{information}>>'",
        "srpo.teacher.system_prompt=Teach.",
        "srpo.grad_norm_freq=1",
        "trainer.v1.trainer_mode=my_trainer",
        "trainer.save_freq=2",
        # A reward function of TRL's, too.
        "reward.custom_reward_function.path=pkg://reward_fns.adapters.trl",
        "+reward.custom_reward_function.reward_kwargs.functions=['tests.stack.reward:in_trls_form']",
    ]
    folder = tmp_path / "run"
    paths = os.pathsep.join([environment(site)["PYTHONPATH"]])
    result = run(folder, stack_model, steps=2, overrides=overrides, environment={"PYTHONPATH": paths})
    assert result.returncode == 0, result.log[-4000:]
    assert "srpo: variant divergence=skew_kl from my_variants:skew_kl, my-variants 0.1.0" in result.log
    assert len(result.steps) == 2
    for step in result.steps:
        assert all(math.isfinite(value) for value in step.values())
        assert step["srpo/my_groups"] > 0
        assert 0 <= step["srpo/metric/repetition/grpo"] <= 1
        # Every group is hard, with one answer that is right.
        assert step["srpo/routed_share"] == 0.75
        assert step["srpo/my_sdpo_loss"] == step["srpo/sdpo_loss"]
        assert step["srpo/grad_norm/sdpo"] > 0
    (line, *_) = result.teacher_prompts
    assert line["provider"] == "solution"
    assert "Teach." in line["teacher_prompt"]
    assert "<<\nReference solution:\n\ntwice " in line["teacher_prompt"]
    (record,) = (folder / "checkpoints/srpo_run").glob("*/run.json")
    assert json.loads(record.read_text())["variants"]["route=hard"].startswith("my_variants:hard, my-variants 0.1.0, ")
    marker = json.loads((folder / "checkpoints/global_step_2/srpo_checkpoint.json").read_text())
    assert marker["identity"]["variants"]["trainer=my_trainer"].startswith("my_variants.trainer:MyTrainer, my-variants")
    assert marker["identity"]["variants"]["teacher=every_ten"].startswith("my_variants:every_ten, my-variants")
    assert (folder / "checkpoints/global_step_2/teacher").is_dir(), "a teacher that moves is state of the run"
