"""What is won by sampling that does not wait for the longest answer: the same run in both trainer modes, in turns.

    python -m benchmarks.async_sampling                       # four runs of 16 steps, about ten minutes in all

Both modes train the tiny model on equally many rollouts, whose lengths are given (`long_tail.py`); replies are scored
by a coin. The first steps do not count: the asynchronous mode begins with the short answers, and its batches are like
the synchronous ones once the long ones have arrived.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.long_tail import LONGEST
from benchmarks.plan_memory import ROOT
from benchmarks.plan_memory import Run as PlannedRun
from benchmarks.stack_step import train

PROMPTS = 8
AGENT = "actor_rollout_ref.rollout.agent"
RUN = PlannedRun(
    "srpo_tiny",
    "tiny",
    (
        f"data.train_batch_size={PROMPTS}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={PROMPTS}",
        "actor_rollout_ref.rollout.n=4",
        f"data.max_response_length={LONGEST}",
        f"actor_rollout_ref.rollout.max_model_len={LONGEST + 160}",
        f"{AGENT}.agent_loop_config_path={ROOT}/benchmarks/long_tail.yaml",
        f"{AGENT}.default_agent_loop=long_tail",
        "trainer.rollout_data_dir=null",
        "srpo.teacher_gain_freq=0",
    ),
)
MODES = {
    "synchronous": ("trainer.v1.trainer_mode=srpo",),
    "colocated asynchronous": ("trainer.v1.trainer_mode=srpo_colocate_async",),
}
ROWS = {
    "step, s": "timing_s/step",
    "of it sampling, s": "timing_s/gen",
    "tokens per rollout": "response_length/mean",
    "longest": "response_length/max",
    "share interrupted": "srpo/staleness/interrupted",
    "versions behind, oldest token": "training/off_policy/trajectory_staleness_worst/mean",
}


def summary(steps: list[dict], skip: int) -> dict[str, float]:
    """Means over the steps after the first `skip`; NaN for what the mode does not log."""
    kept = steps[skip:]
    found = {name: statistics.mean(step.get(key, float("nan")) for step in kept) for name, key in ROWS.items()}
    tokens = sum(step["response_length/mean"] for step in kept)
    found["step, ms per token of a rollout"] = 1000 * sum(step["timing_s/step"] for step in kept) / tokens
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=16, help="of each run (16)")
    parser.add_argument("--skip", type=int, default=6, help="first steps that do not count (6)")
    parser.add_argument("--rounds", type=int, default=2, help="how often both modes take their turn (2)")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one run (900)")
    parser.add_argument("--work", type=Path, default=Path("/tmp/plan_memory"), help="models, data and logs")
    options = parser.parse_args()
    console = Console(width=130)
    table = Table(title=f"means over steps {options.skip + 1} to {options.steps}", title_justify="left")
    results = []
    for number in range(options.rounds):
        for mode, overrides in MODES.items():
            console.print(f"{mode}, round {number + 1}", highlight=False)
            run = replace(RUN, overrides=(*RUN.overrides, *overrides), steps=options.steps)
            steps, _ = train(run, mode, options.work, timeout=options.timeout)
            results.append((mode, summary(steps, options.skip)))
    for column in ("", *(mode for mode, _ in results)):
        table.add_column(column, justify="right" if column else "left")
    for name in results[0][1]:
        table.add_row(name, *(f"{found[name]:.3g}" for _, found in results))
    console.print(table)


if __name__ == "__main__":
    main()
