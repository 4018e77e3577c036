"""A training step through the real stack (verl, Ray, TransferQueue, vLLM): stage by stage, and its profile.

    python -m benchmarks.stack_step tiny                          # GRPO, SRPO, SDPO in turn, 1 to 2 minutes each
    python -m benchmarks.stack_step smollm2 --methods SRPO        # 13 GiB
    python -m benchmarks.stack_step tiny --methods SRPO --profile # needs py-spy, and root

Stages are verl's own timers (`timing_s/*`), the median over the steps after the first. The profile samples driver and
trainer worker 50 times a second after the first step; what the driver waits for in a stage is what the worker did in
that stage, so that all shares are of the step's time on the wall. Replies are scored by a coin (`coin_reward.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.plan_memory import ROOT, SMOLLM2, kind_of, overrides_of, prepare
from benchmarks.plan_memory import Run as PlannedRun
from workflows.process_tree import ProcessTree
from workflows.verl_run import RunFiles, run_environment, verl_command

METHODS = {
    "GRPO": ("srpo.route=none", "srpo.policy_gradient=all"),
    "SRPO": (),
    "SDPO": ("srpo.route=all", "srpo.policy_gradient=none", "srpo.beta=0"),
}
# SmolLM2 with the short questions of examples/smollm2/data.py, so that a step takes a minute at most on two cores.
SHORT = ("data.max_prompt_length=64", "data.max_response_length=16", "actor_rollout_ref.rollout.max_model_len=256")
MODELS = {"tiny": PlannedRun("srpo_tiny", "tiny"), "smollm2": PlannedRun(SMOLLM2, "smollm2", SHORT)}
# Timers within another one.
NESTED = {"srpo_teacher": "adv"}
RATE, SMALLEST = 50, 0.03
# Stage of a sample, and what it is about: the first frame that is found in the stack decides.
STAGES = {
    "on_step_end (": "update_weights",
    "update_weights (": "update_weights",
    "Watchdog.in_stage": "gen",
    "SRPOMixin._route (": "srpo_route",
    "compute_teacher_targets (": "teacher",
    "TeacherClient.ask (": "teacher",
    "compute_log_prob (": "old_log_prob",
    "_compute_old_log_prob (": "old_log_prob",
    "_compute_advantage (": "adv",
    "update_actor (": "update_actor",
}
ITEMS = {
    "kv_batch_get (": "TransferQueue",
    "kv_batch_put (": "TransferQueue",
    "kv_clear (": "TransferQueue",
    "meta_to_realdata": "TransferQueue",
    "update_meta_with_output": "TransferQueue",
    "SRPOObjective.on_logits (": "divergence, forward",
    "StudentTopK.collect (": "student's top K",
    "TeacherTargets.collect (": "teacher's targets",
    "distance (srpo_verl/": "distance of the teacher",
    "move (": "EMA of the teacher",
    "logprobs_from_logits": "log-probs of the sampled tokens",
    "entropy_from_logits": "entropy",
    "Tensor.backward (": "backward pass, of model and losses",
    "optimizer_step (": "optimizer",
    "ForCausalLM.forward (": "forward pass of the model",
    "LogitsHook.__call__ (": "loss, forward",
    "prepare_micro_batches (": "cutting into micro-batches",
    "make_iterator": "cutting into mini-batches",
    "TeacherPromptBuilder.build (": "teacher prompts",
    "_compute_metrics (": "verl's metrics",
    "Tracking.log (": "loggers",
}
# The driver has nothing to do but wait: in `gen` for rollouts, else for Ray and TransferQueue to and from the worker.
WAITING = "waiting"
WAITS = ("get (ray/_private/worker.py", "ReplayBuffer.sample (", "auto_await")


def train(run: PlannedRun, name: str, work: Path, *, timeout: float, profile: bool = False) -> tuple[list[dict], Path]:
    """The metrics of each step, and the folder of the run. Raises RuntimeError if it fails."""
    out = work / "runs" / name.replace(" ", "_")
    folder = prepare(run.model, work)
    out.mkdir(parents=True, exist_ok=True)
    files = RunFiles(out)
    for old in (files.log, files.metrics, *out.glob("*.stacks")):
        old.unlink(missing_ok=True)
    env = run_environment(files, cpu=True)
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [env.get("PYTHONPATH")])])
    samplers: list[subprocess.Popen] = []
    started = time.monotonic()
    command = verl_command(run.config, {}, overrides_of(run, folder, out))
    with ProcessTree(command, log=files.log, env=env) as tree:
        while (code := tree.poll()) is None:
            done = files.metrics.read_text().count("\n") if files.metrics.exists() else 0
            if profile and done >= 1 and not samplers:
                samplers = [_sample(process, out) for process in tree.members() if _profiled(process, tree)]
            if done >= run.steps:
                _finish(samplers)
            if time.monotonic() - started > timeout:
                raise RuntimeError(f"{name} was not done after {timeout:.0f} s; the log: {files.log}")
            time.sleep(0.02)
        _finish(samplers)
    if code != 0:
        raise RuntimeError(f"{name} failed with exit code {code}; the log: {files.log}")
    return [json.loads(line)["data"] for line in files.metrics.read_text().splitlines()], out


def _profiled(process: psutil.Process, tree: ProcessTree) -> bool:
    return kind_of(process, tree.process.pid) in ("driver", "worker")


def _sample(process: psutil.Process, out: Path) -> subprocess.Popen:
    kind = "driver" if "TaskRunner" in " ".join(process.cmdline()) else "worker"
    command = ["py-spy", "record", "--pid", str(process.pid), "--rate", str(RATE), "--idle", "--threads", "--nolineno"]
    command += ["--full-filenames", "--nonblocking", "--format", "raw", "--output", str(out / f"{kind}.stacks")]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _finish(samplers: Iterable[subprocess.Popen]) -> None:
    for sampler in samplers:
        if sampler.poll() is None:
            sampler.send_signal(signal.SIGINT)  # py-spy then writes what it has
    for sampler in samplers:
        sampler.wait(30)


def stage_table(found: dict[str, list[dict]]) -> Table:
    """Median seconds per stage and method, over the steps after the first."""
    table = Table(title="seconds per step, median", title_justify="left")
    for column in ("stage", *found):
        table.add_column(column, justify="left" if column == "stage" else "right")
    stages: dict[str, None] = {}
    for steps in found.values():
        stages |= dict.fromkeys(key for step in steps for key in step if key.startswith("timing_s/"))
    for metric in (*stages, "srpo/routed_share", "perf/total_num_tokens"):
        cells = []
        for steps in found.values():
            values = [step[metric] for step in steps[1:] or steps if metric in step]
            cells.append(f"{statistics.median(values):,.3f}" if values else "")
        name = metric.removeprefix("timing_s/")
        table.add_row(f"{name}, in {NESTED[name]}" if name in NESTED else name, *cells)
    return table


def stacks_of(path: Path, frame: str) -> Counter[str]:
    """Samples by stack, of those that hold `frame`."""
    counts: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        stack, count = line.rsplit(" ", 1)
        if frame in stack:
            counts[re.sub(r"\(\S*?site-packages/", "(", stack.replace(f"{ROOT}/", ""))] += int(count)
    return counts


def placed(stack: str) -> tuple[str, str]:
    """Stage and item of a sample."""
    stage = next((name for frame, name in STAGES.items() if frame in stack), "between stages")
    item = next((name for frame, name in ITEMS.items() if frame in stack), "other")
    return stage, WAITING if item == "other" and any(wait in stack for wait in WAITS) else item


def profile_of(folder: Path) -> tuple[Counter[tuple[str, str]], int]:
    """Samples by stage and item, and all samples of the steps; the driver's waits replaced by the worker's work."""
    counts: Counter[tuple[str, str]] = Counter()
    for stack, count in stacks_of(folder / "driver.stacks", "SRPOMixin.fit (").items():
        counts[placed(stack)] += count
    total = sum(counts.values())
    for stack, count in stacks_of(folder / "worker.stacks", "_bind_workers_method_to_parent").items():
        stage, item = placed(stack)
        # Before and after a method the worker reads from and writes to TransferQueue: that stays in the waits.
        if stage != "between stages":
            counts[stage, WAITING] -= count
            counts[stage, f"worker: {item}"] += count
    return counts, total


def profile_table(folder: Path) -> Table:
    """Every item above 3 % of the step."""
    counts, total = profile_of(folder)
    table = Table(title=f"share of a step, {total / RATE:.0f} s sampled", title_justify="left")
    for column in ("stage", "item", "share"):
        table.add_column(column, justify="right" if column == "share" else "left")
    rest = 0
    for (stage, item), count in counts.most_common():
        if count / total >= SMALLEST:
            table.add_row(stage, item, f"{count / total:.1%}")
        else:
            rest += count
    table.add_row("all others, each below 3 %", "", f"{rest / total:.1%}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--steps", type=int, default=5, help="training steps, the first of which does not count (5)")
    parser.add_argument("--profile", action="store_true", help="sample driver and worker with py-spy")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one run (900)")
    parser.add_argument("--work", type=Path, default=Path("/tmp/plan_memory"), help="models, data and logs")
    options = parser.parse_args()
    console, found = Console(width=130), {}
    for method in options.methods:
        console.print(f"{options.model}, {method}: {options.steps} steps", highlight=False)
        run = MODELS[options.model]
        run = replace(run, overrides=(*run.overrides, *METHODS[method]), steps=options.steps)
        name = f"step_{options.model}_{method}"
        found[method], folder = train(run, name, options.work, profile=options.profile, timeout=options.timeout)
        if options.profile:
            console.print(profile_table(folder))
    console.print(stage_table(found))


if __name__ == "__main__":
    main()
