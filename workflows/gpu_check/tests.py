"""The stages that are tests of this repository: pytest in a process of its own, under a time limit."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
from collections.abc import Sequence

from workflows.gpu_check.junit import read_junit
from workflows.gpu_check.result import Stage
from workflows.gpu_check.settings import NotRunError, Settings, clone, need
from workflows.process_tree import ProcessTree

# Seconds that pytest has to write its report after an interrupt.
WRITING = 60.0
clock = time.monotonic
# What a shell starts in the background ignores interrupts, and so does all that it starts.
PYTEST = """
import signal, sys, pytest
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(pytest.main(sys.argv[1:]))
"""
# Tests of a worker side by side on one GPU; each takes a few hundred MB of it, and most of its time is imports.
SIDE_BY_SIDE = 4
CORE = ["tests/gpu"]
# Elsewhere they go through Triton's interpreter, in minutes.
KERNELS = ["tests/core/test_kernels.py"]
WORKER = [
    "tests/training/worker/test_planned_memory.py",
    "tests/training/worker/test_worker_bf16.py",
    "tests/training/worker/test_worker_teacher.py",
    "tests/training/worker/test_worker_update.py",
    "tests/training/worker/test_worker_lora.py",
    "tests/training/worker/test_worker_resume.py",
]
WORKER_NEEDS = ("verl", "tensordict", "transformers", "peft", "hydra", "codetiming", "transfer_queue")


def core(settings: Settings) -> Stage:
    """The loss and its kernels with torch alone."""
    # What these print are figures; the worker's processes print verl's progress.
    return _pytest("core", CORE + KERNELS * settings.gpu, settings, workers=1, more=["-o", "junit_logging=system-out"])


def worker(settings: Settings) -> Stage:
    """The real worker with FSDP2 in bf16 and an offloaded teacher: teachers, LoRA, micro-batches, save and load."""
    need(WORKER_NEEDS, "they come with requirements/gpu.txt, or in the wheels of `make gpu-wheels`")
    workers = min(SIDE_BY_SIDE, len(os.sched_getaffinity(0)) // 4) if settings.gpu else 1
    targets = ["tests/training/worker"] if settings.full else WORKER
    return _pytest("worker", targets, settings, workers=workers)


def pytest_command(targets: Sequence[str], settings: Settings, junit: str, *, workers: int) -> list[str]:
    """Side by side where pytest-xdist is installed."""
    command = [sys.executable, "-c", PYTEST, *targets, "-q", "--junitxml", junit]
    if workers > 1 and importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(workers)]
    return command + (["-k", settings.select] if settings.select else [])


def _pytest(name: str, targets: Sequence[str], settings: Settings, *, workers: int, more: Sequence[str] = ()) -> Stage:
    root = clone()
    need(("pytest", "pytest_timeout", "hypothesis"), "pip install pytest pytest-timeout hypothesis")
    junit, log = settings.folder / f"{name}.xml", settings.folder / f"{name}.log"
    for old in (junit, log):
        old.unlink(missing_ok=True)
    limit, started = settings.limits[name], clock()
    search = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "SRPO_TEST_PLATFORM": "gpu" if settings.gpu else "rehearsal", "PYTHONPATH": search}
    reason = ""
    command = [*pytest_command(targets, settings, str(junit), workers=workers), *more]
    with ProcessTree(command, log=log, env=env, cwd=root) as tree:
        while (code := tree.poll()) is None:
            if clock() - started > limit:
                reason = f"not done after {limit:.0f} s; the tests that came to their end are below"
                _interrupt(tree)
                break
            time.sleep(0.2)
    if not junit.is_file():
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise NotRunError(f"{reason or f'pytest ended with {code}'} and left no report: {' / '.join(said[-3:])[:600]}")
    checks, peaks = read_junit(junit)
    return Stage(checks=checks, peaks=peaks, reason=reason, log=str(log))


def _interrupt(tree: ProcessTree) -> None:
    """As Ctrl-C does: pytest then writes its report."""
    tree.process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + WRITING
    while tree.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
