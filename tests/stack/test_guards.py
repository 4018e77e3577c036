"""A guard that stops a run; then what the same folder says to other settings, before Ray starts."""

import pytest

from srpo_verl.training.durable import checkpoint_store as store
from tests.patience import RUN, STACK_TEST
from tests.stack.launch import run, write_data
from workflows.run_errors import explain

pytestmark = [pytest.mark.stack, pytest.mark.timeout(STACK_TEST)]


def test_a_guard_stops_and_what_it_leaves_is_checked_before_it_is_resumed(stack_model, tmp_path):
    overrides = [
        "reward.custom_reward_function.name=never_right",
        "srpo.guards.unmixed=2",
        "trainer.save_freq=10",
        "trainer.resume_mode=auto",
    ]
    stopped = run(tmp_path, stack_model, steps=5, overrides=overrides, timeout=RUN)
    assert stopped.returncode not in (0, -9), stopped.log[-4000:]
    assert [step["srpo/guards/unmixed"] for step in stopped.steps] == [1, 2]
    # Without a correct rollout in the whole batch nothing is routed, no teacher runs, and the run goes on until then.
    for step in stopped.steps:
        assert step["srpo/routed_share"] == 0
        assert step["srpo/groups/all_wrong"] == 1
        assert step["actor/grad_norm"] == 0
    said = explain(stopped.log)
    assert "guard srpo.guards.unmixed stopped the run: no group had both correct and incorrect rollouts" in said
    assert "the newest checkpoint is of step 2" in said
    checkpoint = store.inspect(tmp_path / "checkpoints" / "global_step_2")
    assert checkpoint.marker["guards"]["counts"]["unmixed"] == 2

    again = run(tmp_path, stack_model, steps=2, overrides=overrides)
    assert again.returncode == 0
    assert "step 2, and the run ends at step 2: nothing is left to train" in again.log
    other_data = f"data.train_files={write_data(stack_model.parent, rows=24)}"
    for change, says in (
        ("trainer.n_gpus_per_node=2", "was written by 1 ranks, this run has 2"),
        (other_data, "srpo.checkpoint.restart_data=true"),
    ):
        refused = run(tmp_path, stack_model, steps=5, overrides=[*overrides, change])
        assert refused.returncode == 2
        assert says in explain(refused.log)
        assert "Started a local Ray instance" not in refused.log
