"""One run in one folder, whatever happens to `srpo train`: killed again and again, started twice, stopped."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch

from srpo_verl.base.lease import TOKEN
from srpo_verl.base.processes import family_of
from srpo_verl.verl_names.leftovers import _LEFTOVERS as LEFTOVERS
from tests.patience import PROCESS, RUN, STACK_TEST
from tests.stack.exact import EXACT, assert_same
from tests.stack.launch import ENVIRONMENT, REPOSITORY, write_data
from workflows.live.run_state import run_state
from workflows.train.folder import newest_checkpoint

pytestmark = [pytest.mark.stack, pytest.mark.timeout(STACK_TEST)]

# A step is a second or less, a start is most of a minute. A run that is killed has three steps or more before it.
STEPS = 6
SEED = int(os.environ.get("SRPO_KILL_SEED", "0"))


def srpo(*words, **options) -> subprocess.Popen:
    settings = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, "-m", "workflows.cli", *map(str, words)],
        env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, **options,
    )  # fmt: skip


def train(out: Path, model: Path, *more: str, steps: int = STEPS) -> subprocess.Popen:
    data = write_data(model.parent, rows=16)
    words = [f"tiny.run={out}", f"actor_rollout_ref.model.path={model}", f"data.train_files={data}"]
    words += [f"data.val_files={data}", "data.train_batch_size=4", "actor_rollout_ref.actor.ppo_mini_batch_size=4"]
    words += ["data.max_response_length=16", "reward.custom_reward_function.path=pkg://tests.stack.reward"]
    words += [
        "trainer.val_before_train=false",
        "trainer.max_actor_ckpt_to_keep=2",
        f"trainer.total_training_steps={steps}",
    ]
    words += [word for word in EXACT if not word.startswith("trainer.")]
    words += ["trainer.save_freq=1", "trainer.test_freq=-1"]
    options = [word for word in more if word.startswith("--")]
    return srpo("train", "srpo_tiny", "--out", out, "--no-checks", *options, *words, *set(more) - set(options))


def token_of(out: Path) -> str:
    return run_state(out).record.token


def steps_logged(out: Path) -> list[int]:
    files = sorted(out.glob("srpo_run/*/metrics.jsonl"))
    return [json.loads(line)["step"] for file in files for line in file.read_bytes().split(b"\n")[:-1]]


def wait_for(what, process: subprocess.Popen, timeout: float = RUN) -> None:
    deadline = time.monotonic() + timeout
    while not what():
        assert process.poll() is None, process.stdout.read()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def leftovers() -> list[Path]:
    """Shared memory of weights that no process has; that of runs beside this one is in use."""
    found = [path for pattern in LEFTOVERS[:1] for path in Path("/").glob(pattern[1:])]
    return [path for path in found if not _in_use(path)]


def _in_use(path: Path) -> bool:
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            if str(path) in maps.read_text():
                return True
    return False


def check_all_gone(token: str, memory_before: list[Path]) -> None:
    """Within seconds no process of the run is there, nor its shared memory."""
    assert psutil.wait_procs(family_of(TOKEN, token), timeout=PROCESS)[1] == []
    deadline = time.monotonic() + PROCESS
    while left := [path for path in leftovers() if path not in memory_before]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.fixture(scope="module")
def whole(stack_model, tmp_path_factory):
    """A run that was never killed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    process = train(out, stack_model)
    said, _ = process.communicate(timeout=RUN)
    assert process.returncode == 0, said[-3000:]
    return out


def test_killed_at_random_moments_and_resumed_it_is_the_run_that_was_never_killed(whole, stack_model, tmp_path):
    """SIGKILL of `srpo train` while it starts, while a step runs, and somewhere after another; each time --resume."""
    rng, out, before = random.Random(SEED), tmp_path / "run", leftovers()
    first = rng.randint(0, 1)
    for number, after in enumerate((None, first, rng.randint(first + 1, STEPS - 3))):
        process = train(out, stack_model, *(["--resume"] if number else []))
        wait_for(lambda: (out / "srpo_lease").is_dir(), process)
        if after is not None:
            wait_for(
                lambda after=after: (
                    max(steps_logged(out), default=0) >= after and run_state(out).beat.doing != "starting"
                ),
                process,
            )
        time.sleep(rng.uniform(0, 3 if after is None else 1.5))
        token = token_of(out)
        process.send_signal(signal.SIGKILL)
        process.wait()
        # The next start does not wait for the end of this one.
        if number == 1:
            continue
        check_all_gone(token, before)
    process = train(out, stack_model, "--resume")
    # The record of the run that was killed is still there.
    wait_for(lambda: token_of(out) != token and run_state(out).record.what == "training", process)
    second = train(out, stack_model, "--resume")
    said = second.communicate(timeout=PROCESS)[0]
    assert second.returncode == 1, said
    assert re.search(
        r"belongs to run \w+ \(host \S+, pid \d+\), \w+ since .*srpo attach .*srpo stop .*another folder", said
    )
    token = token_of(out)
    said, _ = process.communicate(timeout=RUN)
    assert process.returncode == 0, said[-3000:]
    check_all_gone(token, before)
    assert steps_logged(out) == list(range(1, STEPS + 1))
    for part in ("actor/model", "actor/optim", "teacher/model"):
        file = f"{part}_world_size_1_rank_0.pt"
        folders = [place / f"global_step_{STEPS}" / file for place in (whole, out)]
        assert_same(*(torch.load(path, weights_only=False) for path in folders))


@pytest.mark.nightly
@pytest.mark.parametrize("stage", ["gen", "update_actor", "save_checkpoint"])
def test_preempted_in_a_stage_it_ends_with_that_steps_checkpoint(stage, stack_model, tmp_path):
    out = tmp_path / "run"
    process = train(out, stack_model, "srpo.lease.interval=0.02", "trainer.save_freq=2", steps=50)
    wait_for(lambda: steps_logged(out) and run_state(out).beat.doing == stage, process)
    token = token_of(out)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=RUN)
    assert process.returncode == 130, said
    stopped = re.search(r"SIGTERM: stopped after step (\d+)\.", said)
    assert stopped, said
    step = int(stopped[1])
    assert steps_logged(out) == list(range(1, step + 1))
    assert newest_checkpoint(out).name == f"global_step_{step}"
    assert run_state(out).how.startswith("stopped: SIGTERM")
    check_all_gone(token, [])


@pytest.mark.nightly
def test_preempted_without_the_time_to_end_its_step_it_loses_the_steps_since_the_checkpoint(stack_model, tmp_path):
    out = tmp_path / "run"
    process = train(
        out, stack_model, "srpo.checkpoint.grace=0", "trainer.save_freq=2", "srpo.poll_interval=3", steps=50
    )
    wait_for(lambda: max(steps_logged(out), default=0) >= 3, process)
    process.send_signal(signal.SIGUSR1)
    said, _ = process.communicate(timeout=RUN)
    assert process.returncode == 130, said
    assert "SIGUSR1, and the step did not end within 0 s" in said
    assert int(newest_checkpoint(out).name.rpartition("_")[2]) in (2, 4)


@pytest.mark.nightly
def test_a_detached_run_goes_on_is_shown_and_is_stopped_with_a_checkpoint(stack_model, tmp_path):
    out = tmp_path / "run"
    begun = train(out, stack_model, "--detach", steps=50)
    said, _ = begun.communicate(timeout=RUN)
    assert begun.returncode == 0, said
    assert "srpo attach" in said
    shown = srpo("attach", out)
    wait_for(lambda: steps_logged(out), shown)
    token = token_of(out)
    stopped = srpo("stop", out)
    said, _ = stopped.communicate(timeout=RUN)
    assert stopped.returncode == 0, said
    assert "stopped: srpo stop on" in said
    assert "step 1/" in shown.communicate(timeout=PROCESS)[0]
    assert newest_checkpoint(out).name == f"global_step_{steps_logged(out)[-1]}"
    check_all_gone(token, [])
