"""Six steps at once, and six steps with a SIGKILL in between, are the same run."""

import json

import pytest
import torch

from tests.patience import RUN, STACK_TEST
from tests.stack.exact import EXACT, assert_same
from tests.stack.launch import Run, run, write_data

# What a kill costs is looked at in every run of the tests, by test_one_writer.py; here, that nothing else differs.
pytestmark = [pytest.mark.stack, pytest.mark.nightly, pytest.mark.timeout(STACK_TEST)]

# What a clock or the machine decides.
MEASURED = ("timing", "perf/", "actor/perf/", "training/epoch_time")


@pytest.fixture(scope="module")
def runs(stack_model, tmp_path_factory):
    """`whole`: 6 steps. `first`: killed when step 4 was logged. `second`: the same command again."""
    folder = tmp_path_factory.mktemp("resume")
    data = write_data(stack_model.parent, rows=16)  # an epoch is four steps: the resumed part crosses into the second
    overrides = [*EXACT, f"data.train_files={data}", f"data.val_files={data}"]
    whole = run(folder / "whole", stack_model, steps=6, overrides=overrides, timeout=RUN)
    assert whole.returncode == 0, whole.log[-4000:]
    first = run(folder / "cut", stack_model, steps=6, overrides=overrides, timeout=RUN, kill_after_step=4)
    assert first.returncode == -9, first.log[-4000:]
    first_steps = first.steps
    second = run(
        folder / "cut",
        stack_model,
        steps=6,
        overrides=overrides,
        timeout=RUN,
        environment={"VERL_FILE_LOGGER_PATH": str(folder / "cut" / "second.jsonl")},
    )
    assert second.returncode == 0, second.log[-4000:]
    lines = [json.loads(line) for line in (folder / "cut" / "second.jsonl").read_text().splitlines()]
    second_steps = [line["data"] for line in lines if "training/global_step" in line["data"]]
    return whole, first_steps, second_steps, folder


def tensors(folder, part, step=6):
    return torch.load(folder / f"checkpoints/global_step_{step}" / part, weights_only=False)


@pytest.mark.parametrize(
    "part",
    [
        "actor/model_world_size_1_rank_0.pt",
        "actor/optim_world_size_1_rank_0.pt",
        "teacher/model_world_size_1_rank_0.pt",
        "data.pt",
    ],
)
def test_the_checkpoint_after_step_6_is_identical(runs, part):
    *_, folder = runs
    assert_same(tensors(folder / "whole", part), tensors(folder / "cut", part))


def test_schedule_and_random_state_of_the_worker(runs):
    """A start draws no seed of its own, so two starts differ; what was restored is what is saved again."""
    *_, folder = runs
    part = "actor/extra_state_world_size_1_rank_0.pt"
    whole, cut, before = (
        tensors(folder / "whole", part),
        tensors(folder / "cut", part),
        tensors(folder / "cut", part, 3),
    )
    assert_same(whole["lr_scheduler"], cut["lr_scheduler"])
    assert_same(before["rng"], cut["rng"])


def test_same_batches(runs):
    """The teacher prompts of every step, with the demonstrations that the model itself wrote, are the same text."""
    whole, _, _, folder = runs
    cut = Run(folder / "cut", 0, "")
    assert whole.teacher_prompts == cut.teacher_prompts


def test_same_metrics(runs):
    whole, first, second, _ = runs
    assert [step["training/global_step"] for step in first] == [1, 2, 3, 4]
    assert [step["training/global_step"] for step in second] == [4, 5, 6]
    for expected, found in zip(whole.steps, [*first[:3], *second], strict=True):
        expected = {key: value for key, value in expected.items() if key != "step" and not key.startswith(MEASURED)}
        found = {key: value for key, value in found.items() if key != "step" and not key.startswith(MEASURED)}
        assert found == expected


def test_step_4_of_the_first_start_is_step_4_of_the_second(runs):
    _, first, second, _ = runs
    assert first[3]["actor/grad_norm"] == second[0]["actor/grad_norm"]
