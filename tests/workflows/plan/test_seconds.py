from dataclasses import replace

import pytest

from workflows.compose_config import compose_config
from workflows.plan.gpus import GPU
from workflows.plan.seconds import Assumptions, generation_seconds, pass_seconds, step_seconds, this_cpu
from workflows.plan.settings import Lengths, settings_of
from workflows.plan.shapes import ModelShape

SHAPE = ModelShape(hidden=4, layers=2, heads=2, kv_heads=1, head_dim=2, mlp=6, vocab=10, tied=True)
# 1 TFLOPS, 1 TB/s, all of it reached; no fixed costs.
PLAIN = GPU("plain", 80, 1.0, 1.0, 100)
ALL = Assumptions(1.0, 1.0, 0.0, 1e9, 0.0, 0.0)


@pytest.fixture(scope="module")
def settings():
    config = compose_config(
        "srpo",
        ["trainer.n_gpus_per_node=2", "data.train_batch_size=4", "actor_rollout_ref.actor.ppo_mini_batch_size=4"],
    )
    return settings_of(config, shape=SHAPE)


def test_generation_reads_weights_per_step_and_the_cache_of_the_living(settings):
    lengths = Lengths(prompt=100, response=50, longest=2.0, teacher_prompt=0)
    # 100 steps * 296 parameters * 2 bytes; 16 sequences * (50 * 100 + 0.75 * 2500) tokens * 16 bytes.
    read = (100 * 592 + 16 * 6875 * 16) / 1e12
    prefill = 2 * 100 * (592 + 32 * 50) / 1e15
    fast = replace(PLAIN, tflops=1000)
    assert generation_seconds(settings, lengths, fast, ALL) == pytest.approx(read + prefill)
    waiting = replace(ALL, decode_overhead=0.01)
    assert generation_seconds(settings, lengths, fast, waiting) == pytest.approx(read + prefill + 1.0)
    # Bound by FLOPs: 16 * 50 tokens with 125 tokens of context on average.
    computed = 800 * (592 + 32 * 125) / 1e12
    assert generation_seconds(settings, lengths, PLAIN, ALL) == pytest.approx(computed + 1000 * prefill)


def test_a_pass_is_computing_or_gathering(settings):
    flops = 2 * 1000 * (592 + 32 * 250)
    args = (settings, 4, 500.0, 20480)
    assert pass_seconds(*args, 1.0, replace(PLAIN, link_gbs=1e9), ALL) == pytest.approx(flops / 2 / 1e12)
    # 300 parameters, half of them missing, 2 bytes; forward and backward gather once each.
    assert pass_seconds(*args, 3.0, replace(PLAIN, link_gbs=1e-9), ALL) == pytest.approx(2 * 300)
    assert pass_seconds(settings, 0, 500.0, 20480, 1.0, PLAIN, ALL) == 0


def test_under_a_mask_a_token_meets_its_whole_micro_batch(settings):
    fast = replace(PLAIN, link_gbs=1e9)
    # 1000 tokens of a rank in one micro-batch, and in four of 250.
    for budget, context in ((20480, 1000), (300, 250)):
        found = pass_seconds(replace(settings, mask=True), 4, 500.0, budget, 1.0, fast, ALL)
        assert found == pytest.approx(1000 * (592 + 32 * context) / 1e12)


def test_every_micro_batch_costs_its_launch(settings):
    fixed = replace(ALL, micro_batch=1.0)
    assert pass_seconds(settings, 4, 500.0, 300, 1.0, PLAIN, fixed) == pytest.approx(4, abs=0.01)


def test_the_teacher_costs_in_proportion_to_what_is_routed(settings):
    lengths = Lengths(prompt=100, response=50, longest=2.0, teacher_prompt=200)
    none, half, all_of_them = (
        step_seconds(settings, lengths, PLAIN, routed=share, assumed=ALL)["teacher"] for share in (0.0, 0.5, 1.0)
    )
    assert none == pytest.approx(300 / 2 * 4 / 1e9)  # the weights still travel once
    assert all_of_them - none == pytest.approx(2 * (half - none))


def test_grpo_has_no_teacher():
    config = compose_config("grpo", ["trainer.n_gpus_per_node=8"])
    stages = step_seconds(settings_of(config), Lengths(512, 1024, 3.0, 0), PLAIN, routed=0.0)
    assert "teacher" not in stages
    assert "teacher's EMA" not in stages


def test_this_cpu_is_measured():
    cpu = this_cpu()
    assert 1e-4 < cpu.tflops < 10
    assert 1e-4 < cpu.bandwidth_tbs < 1
