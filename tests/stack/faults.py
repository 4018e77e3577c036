"""Runs into which a fault is injected once they train, and what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.patience import PROCESS, RUN
from tests.stack.launch import Run, command, settings
from workflows.process_tree import ProcessTree

# How long the family of a run may take to disappear by itself after its first process has ended. When that one got
# SIGKILL, Ray's two agents go last: they look for Ray's dead control service for 60 s.
TAKE_DOWN = PROCESS

Injection = Callable[[ProcessTree], None]


@dataclass
class FaultyRun(Run):
    """A run that ended, by itself or because its time was up (returncode -9)."""

    seconds: float = 0.0  # from the injection (or the start, if there was none) to the end of the first process
    gone_after: float = 0.0  # seconds from there until the last process of the family was gone
    left_over: list[str] = field(default_factory=list)  # processes still alive TAKE_DOWN seconds after it

    @property
    def sentences(self) -> list[str]:
        """What the run said of itself: the lines of its log with `srpo: `."""
        return [line for line in self.log.splitlines() if "srpo: " in line]


def kill(*names: str, signal: int = 9, which: int = 0) -> Injection:
    """Sends a signal to the `which`-th process whose title begins with one of `names`, by pid."""

    def inject(tree: ProcessTree) -> None:
        found = sorted((p for p in tree.members() if title(p).startswith(names)), key=lambda process: process.pid)
        if not found:
            raise LookupError(f"none of {names} among {sorted(map(title, tree.members()))}")
        found[which].send_signal(signal)

    return inject


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:120]
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return "(gone)"


def run_with_fault(
    folder: Path,
    model: Path,
    *,
    inject: Injection | None = None,
    after_steps: int = 1,
    steps: int = 50,
    once: Path | None = None,
    delay: float = 0.0,
    overrides: Sequence[str] = (),
    environment: dict[str, str] | None = None,
    timeout: float = RUN,
    each_step: Callable[[ProcessTree, int], None] | None = None,
) -> FaultyRun:
    """Train, inject, and wait for the end.

    Injected once `after_steps` steps are logged and the file `once` is there, `delay` s later. The run is killed
    `timeout` s after its start.
    """
    arguments = command(folder, model, steps=steps, overrides=overrides)
    log, metrics = folder / "log.txt", folder / "metrics.jsonl"
    deadline = time.monotonic() + timeout
    with ProcessTree(arguments, log=log, env=settings(folder, environment), cwd=folder) as tree:
        start = time.monotonic()
        if inject is not None:
            while _lines(metrics) < after_steps or not (once is None or once.exists()):
                if tree.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"no step {after_steps}:\n{log.read_text(errors='replace')[-4000:]}")
                time.sleep(0.1)
            time.sleep(delay)
            start = time.monotonic()
            inject(tree)
        step = 0
        while tree.poll() is None and time.monotonic() < deadline:
            tree.members()  # remembers descendants before they are orphaned
            if each_step is not None and step < (step := _lines(metrics)):
                each_step(tree, step)
            time.sleep(0.2)
        seconds, code = time.monotonic() - start, tree.poll()
        end = time.monotonic()
        while code is not None and tree.members() and time.monotonic() < end + TAKE_DOWN:
            time.sleep(0.5)
        gone_after, left_over = time.monotonic() - end, sorted(map(title, tree.members()))
    code = -9 if code is None else code
    result = FaultyRun(folder, code, log.read_text(errors="replace"), seconds, gone_after, left_over)
    print(f"ended with {code} after {seconds:.1f} s, left over for {gone_after:.1f} s", *result.sentences, sep="\n")
    return result


def _lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0
