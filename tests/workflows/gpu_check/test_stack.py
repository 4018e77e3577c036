"""What the stage `stack` makes of a run: by hand-written records and logs."""

import re

import pandas as pd
import pytest

from reward_fns import compute_score
from workflows.compose_config import compose_config
from workflows.demo import ON_A_GPU
from workflows.gpu_check.card_memory import CardMemory
from workflows.gpu_check.planned import Measured, run_peaks
from workflows.gpu_check.result import Outcome
from workflows.gpu_check.settings import METHODS, NotRunError, Settings
from workflows.gpu_check.stack import _of_run, _resumed
from workflows.gpu_check.stack_runs import Material, Ran, material, overrides, write_sums
from workflows.metrics_log import Record
from workflows.plan.gpus import GPUS
from workflows.verl_run import RunFiles, RunOutcome

WELL = {
    "training/global_step": 1.0,
    "training/rollout_probs_diff_mean": 0.004,
    "actor/grad_norm": 1.0,
    "srpo/routed_share": 0.25,
    "timing_s/step": 2.0,
}


def ran(folder, steps, *, log="", failure="", card=(), **changed):
    files = RunFiles(folder)
    folder.mkdir(exist_ok=True)
    files.log.write_text(log)
    records = [Record(step, {**WELL, **changed}) for step in steps]
    memory = CardMemory()
    memory.samples = list(card)
    return Ran(files, records, memory, None if failure else RunOutcome(records), failure)


def outcomes(folder, found, platform="cpu", expected=2):
    checks = _of_run("srpo", found, Settings(platform, folder), expected=expected, killed=False)
    return {check.name.partition(": ")[2]: (check.outcome.value, check.reason) for check in checks}


def test_a_good_run(tmp_path):
    found = outcomes(tmp_path, ran(tmp_path, [1, 2], **{"training/rollout_probs_diff_mean": 1e-6}))
    assert found.pop("vLLM sleeps and wakes") == ("skipped", "platform=cpu never sleeps")
    assert set(found.values()) == {("passed", "")}
    assert len(found) == 5


@pytest.mark.parametrize(
    ("name", "steps", "options", "said"),
    [
        ("2 steps", [1], {}, r"steps \[1\]"),
        ("2 steps", [], {"failure": "exit code 1."}, "exit code 1"),
        ("losses and gradients are finite", [1, 2], {"actor/grad_norm": float("nan")}, "actor/grad_norm nan in step 1"),
        ("rollout and actor agree", [1, 2], {"training/rollout_probs_diff_mean": 0.01}, "0.01, more than 0.001"),
        ("rollouts are distilled", [1, 2], {"srpo/routed_share": 0.0}, "no rollout was distilled"),
        (
            "no false alarm of the watchdog",
            [1, 2],
            {"log": "(TaskRunner) srpo: the run was ended by its watchdog:\n"},
            "ended by its watchdog",
        ),
    ],
)
def test_what_is_wrong_is_named(name, steps, options, said, tmp_path):
    outcome, reason = outcomes(tmp_path, ran(tmp_path, steps, **options))[name]
    assert outcome == "failed"
    assert re.search(said, reason)


def test_a_resumed_run_begins_at_the_checkpoint(tmp_path):
    first = ran(tmp_path / "a", range(1, 12))
    assert _resumed("srpo", first, ran(tmp_path / "b", range(11, 21)), 20).outcome is Outcome.PASSED
    for steps in (range(1, 21), range(11, 20), range(13, 21), []):
        assert _resumed("srpo", first, ran(tmp_path / "b", steps), 20).outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("samples", "fall"),
    [([], 0), ([1, 5, 9], 0), ([1, 9, 2], 0), ([1, 9, 2, 9, 0], 7), ([9, 2, 5, 1], 3), ([3, 9, 4, 8, 1, 7], 6)],
)
def test_what_is_given_back_and_taken_again(samples, fall):
    """What is given back at the end of the run is not taken again."""
    memory = CardMemory()
    memory.samples = [float(value) for value in samples]
    assert memory.deepest_fall() == fall


def test_samples_are_taken_until_the_driver_says_nothing():
    answers = iter([3.0, 7.0, None])
    with CardMemory(read=lambda: next(answers), interval=0.0) as memory:
        memory._thread.join()
    assert memory.samples == [3.0, 7.0]
    assert memory.peak == 7.0


def test_the_questions_are_graded_by_their_last_integer(tmp_path):
    write_sums(tmp_path / "sums.parquet")
    row = pd.read_parquet(tmp_path / "sums.parquet").iloc[0]
    truth = row["reward_model"]["ground_truth"]
    assert compute_score(row["data_source"], f"That is {truth}.", truth)["score"] == 1.0
    assert compute_score(row["data_source"], "That is 1000.", truth)["score"] == 0.0


def test_a_model_that_is_not_there_is_asked_for_by_name(tmp_path):
    with pytest.raises(NotRunError, match=r"holds no model: .*prepare.py.*--model tiny"):
        material(Settings("gpu", tmp_path, model=str(tmp_path)))


@pytest.mark.parametrize("platform", ["gpu", "cpu"])
@pytest.mark.parametrize("method", METHODS)
def test_the_config_of_a_run_is_whole_and_can_be_planned(platform, method, tmp_path):
    found = Material("Qwen3-0.6B", tmp_path / "a", tmp_path / "b", tiny=False)
    config = compose_config(method, overrides(Settings(platform, tmp_path), found, tmp_path, steps=4, save=2))
    assert config.trainer.device == ("cuda" if platform == "gpu" else "cpu")
    measured = Measured(prompt=30, response=8, routed=0.2, allocated=4e9, card=3e10, host=9e9)
    gpu = GPUS["H100"] if platform == "gpu" else None
    peaks = {peak.what.partition(": ")[2]: peak for peak in run_peaks(config, method, gpu, measured)}
    assert len(peaks) == (3 if gpu else 1)
    assert peaks["processes on the host"].measured == 9e9
    if gpu:
        # Weights, gradients, two AdamW states, in float32, and what a small batch adds.
        assert 16 * 0.596e9 < peaks["trainer, allocated"].planned < 24 * 0.596e9
        assert 0.4 * gpu.memory < peaks["the card, all processes"].planned < 0.6 * gpu.memory


def test_the_demo_on_a_gpu_is_of_the_gpu_platform():
    config = compose_config("srpo_tiny", ON_A_GPU)
    assert (config.trainer.device, config.trainer.n_gpus_per_node) == ("cuda", 1)
    assert config.actor_rollout_ref.rollout.free_cache_engine
