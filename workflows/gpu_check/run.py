"""All stages that were asked for, one after another; what one of them ends with does not touch the others.

A stage's module is imported when its turn comes: the first one needs torch and pytest, the third verl, Ray and vLLM.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module

from srpo_verl.base.files import write_atomically
from workflows.gpu_check import machine
from workflows.gpu_check.card_memory import query
from workflows.gpu_check.page import markdown_page
from workflows.gpu_check.result import Check, Outcome, Report, Stage
from workflows.gpu_check.settings import NotRunError, Settings

# Name -> module; the function has the name of the stage.
STAGES = {
    "core": "workflows.gpu_check.tests",
    "worker": "workflows.gpu_check.tests",
    "stack": "workflows.gpu_check.stack",
    "demo": "workflows.gpu_check.demo",
}
# Seconds.
LIMITS = {"core": 300.0, "worker": 1200.0, "stack": 1800.0, "demo": 900.0}
RESULTS, PAGE = "results.json", "results.md"


class NoGPUError(RuntimeError):
    """There is nothing to check here; the message is one sentence."""


def require_gpu() -> None:
    """Raise NoGPUError where torch sees no GPU."""
    import torch

    if not torch.cuda.is_available():
        driver = query("driver_version")
        raise NoGPUError(
            f"torch {torch.__version__} sees no GPU here (NVIDIA's driver: {driver or 'none'}), so nothing was "
            "checked; --platform cpu rehearses the stages without one."
        )


def run_checks(
    settings: Settings,
    names: Sequence[str] = tuple(STAGES),
    *,
    say: Callable[[str], None] = print,
    stages: Mapping[str, str] = STAGES,
) -> Report:
    """Run the stages, and write the results after each, so that a check that is cut off leaves what it found.

    Raises:
        NoGPUError: platform "gpu", and torch sees none.
        ValueError: a stage is named that there is not.
    """
    if unknown := [name for name in names if name not in stages]:
        raise ValueError(f"there is no stage {', '.join(unknown)}; the stages are {', '.join(stages)}")
    if settings.gpu:
        require_gpu()
    settings = replace(settings, limits={**LIMITS, **settings.limits})
    settings.folder.mkdir(parents=True, exist_ok=True)
    report = Report(settings.platform, time.strftime("%Y-%m-%dT%H:%M:%S%z"), machine.describe(), [])
    for name in names:
        say(f"{name}: at most {settings.limits[name]:.0f} s")
        report = replace(report, stages=[*report.stages, _one(name, stages[name], settings)])
        save(report, settings)
        say(_line(report.stages[-1]))
    return report


def _one(name: str, module: str, settings: Settings) -> Stage:
    started, limit = time.monotonic(), settings.limits[name]
    title = ""
    try:
        stage: Callable[[Settings], Stage] = getattr(import_module(module), name)
        title = stage.__doc__ or ""
        return replace(stage(settings), name=name, title=title, limit=limit, seconds=time.monotonic() - started)
    except (NotRunError, ModuleNotFoundError) as error:
        return Stage(name, title, seconds=time.monotonic() - started, limit=limit, reason=str(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001  (reported, with where it was raised)
        frame = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"the stage itself failed: {type(error).__name__}: {error} (at {frame.filename}:{frame.lineno})"
        seconds = time.monotonic() - started
        return Stage(name, title, [Check("the stage", Outcome.FAILED, seconds, reason)], [], seconds, limit)


def save(report: Report, settings: Settings) -> None:
    """The JSON file and the page."""
    write_atomically(settings.folder / RESULTS, json.dumps(report.as_dict(), indent=1) + "\n")
    write_atomically(settings.folder / PAGE, markdown_page(report))


def _line(stage: Stage) -> str:
    counts = ", ".join(f"{stage.count(o)} {o}" for o in (Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED))
    line = f"{stage.name}: {stage.outcome} ({counts}; {stage.seconds:.0f} s)"
    if stage.outcome is Outcome.NOT_RUN:
        return f"{line}: {stage.why_not}"
    failed = [f"  {check.name}: {check.reason}" for check in stage.checks if check.outcome is Outcome.FAILED]
    return "\n".join([line, *([f"  {stage.reason}"] if stage.reason else []), *failed])
