"""The stage `demo`: `srpo demo` on the device."""

from __future__ import annotations

import time

from rich.console import Console

from workflows.demo import run_demo
from workflows.gpu_check.result import Check, Outcome, Stage
from workflows.gpu_check.settings import Settings, need
from workflows.verl_run import RunFailed

# Points of held-out accuracy that the demo's own number of steps gains at least; on CPUs it gained 49 to 55.
GAIN, STEPS = 20.0, 25


def demo(settings: Settings) -> Stage:
    """`srpo demo`: a tiny model learns arithmetic with SRPO."""
    need(("verl", "ray", "vllm", "transfer_queue"), "they come with requirements/gpu.txt")
    started, limit = time.monotonic(), settings.limits["demo"]
    folder = settings.folder / "demo"
    try:
        summary = run_demo(
            out=folder,
            steps=settings.demo_steps,
            platform=settings.platform,
            force=True,
            timeout=limit,
            console=Console(force_terminal=False),
        )
    except RunFailed as error:
        checks = [Check("it trains", Outcome.FAILED, time.monotonic() - started, str(error))]
        return Stage(checks=checks, log=str(folder))
    figures = {
        "steps": str(summary.steps),
        "median step without the first": f"{summary.seconds_per_step:.2f} s" if summary.seconds_per_step else "unknown",
        "held-out accuracy": f"{summary.held_out_before or 0:.1%} -> {summary.held_out_after or 0:.1%}",
    }
    checks = [Check("it trains", Outcome.PASSED, summary.total_seconds, figures=figures)]
    gained = summary.points_gained
    if summary.steps < STEPS:
        reason = f"{summary.steps} steps are too few to learn by"
        checks.append(Check("it learns", Outcome.SKIPPED, reason=reason))
    elif gained is None or gained < GAIN:
        checks.append(
            Check("it learns", Outcome.FAILED, reason=f"gained {gained} points, at least {GAIN:.0f} expected")
        )
    else:
        checks.append(Check("it learns", Outcome.PASSED, figures={"gained": f"{gained:.1f} points"}))
    return Stage(checks=checks, log=str(folder))
