"""Long runs: three hundred steps that must not grow, and workers killed again and again, each time resumed.

SRPO_SOAK_STEPS and SRPO_KILLS shorten them.
"""

import os
import random

import numpy as np
import pytest

from tests.stack.faults import kill, run_with_fault
from tests.stack.process_samples import Samples, slope
from tests.stack.test_faults import check_end

pytestmark = [pytest.mark.stack, pytest.mark.nightly, pytest.mark.timeout(6 * 3600)]

STEPS = int(os.environ.get("SRPO_SOAK_STEPS", "300"))
KILLS = int(os.environ.get("SRPO_KILLS", "10"))
# Caches fill and allocators settle until then; Ray's memory of past calls is full after about 130 steps.
WARM_UP = STEPS // 2
# A night of steps of one second is 40,000 steps; at this rate a process would gain 2 GB in it.
BYTES_PER_STEP = 50_000


def test_soak(stack_model, tmp_path, capsys):
    """Memory and open files of each process, number of processes, queue entries: none grows. Metrics are complete."""
    samples = Samples()
    result = run_with_fault(
        tmp_path,
        stack_model,
        steps=STEPS,
        each_step=samples.take,
        overrides=["srpo.dump_dir=null", "data.train_batch_size=4", "trainer.total_epochs=1000"],
        timeout=5 * 3600,
    )
    samples.write(tmp_path / "samples.json")
    assert result.returncode == 0, result.log[-4000:]
    assert result.left_over == []
    table, growing = ["process: bytes per step, 95 % interval; open files first, last"], []
    for name, rows in sorted(samples.lasting(WARM_UP).items()):
        steps = np.array(samples.steps[name])[rows]
        memory, half = slope(steps, np.array(samples.memory[name])[rows])
        files = np.array(samples.files[name])[rows]
        table.append(f"{name}: {memory:.0f} +- {half:.0f}; {files[0]}, {files[-1]}")
        if memory - half > BYTES_PER_STEP or files[len(files) // 2 :].min() > files[: len(files) // 2].max():
            growing.append(table[-1])
    with capsys.disabled():
        print("", *table, f"processes: {samples.processes[0]} to {samples.processes[-1]}", sep="\n")
    assert growing == []
    later = samples.processes[len(samples.processes) // 3 :]
    assert max(later) - min(later) <= 2
    assert [step["training/global_step"] for step in result.steps] == list(range(1, STEPS + 1))
    assert len({step["srpo/queue_entries"] for step in result.steps}) == 1
    always = {"srpo/routed_share", "srpo/rollout_failures", "actor/grad_norm", "actor/pg_loss", "timing_s/step"}
    assert all(always <= step.keys() for step in result.steps)


def test_one_rank_killed_again_and_again(stack_model, tmp_path):
    """Two ranks; one's worker is killed at a random moment; the next start goes on from the newest checkpoint."""
    rng = random.Random(0)
    overrides = [
        "trainer.n_gpus_per_node=2",
        "trainer.save_freq=1",
        "trainer.max_actor_ckpt_to_keep=2",
        "trainer.resume_mode=auto",
        "trainer.total_epochs=1000",
        f"trainer.default_local_dir={tmp_path}/checkpoints",
        "srpo.watchdog.interval=1",
    ]
    reached = 0
    for number in range(KILLS):
        result = run_with_fault(
            tmp_path / f"start_{number}",
            stack_model,
            inject=kill("ray::WorkerDict", which=rng.randrange(2)),
            after_steps=rng.randint(1, 4),
            delay=rng.uniform(0, 4),
            steps=10_000,
            overrides=overrides,
        )
        steps = [step["training/global_step"] for step in result.steps]
        print(f"kill {number}: steps {steps}, ended after {result.seconds:.0f} s", flush=True)
        check_end(result, "is dead: its process was killed", "the newest checkpoint is of step")
        # Nothing was lost but what came after the newest checkpoint: a step is saved before it is logged.
        assert reached <= steps[0] - 1 <= reached + 1
        reached = steps[-1]
