"""Starts `python -m verl.trainer.main_ppo`, watches it to its end, and leaves nothing of it running.

What verl, Ray and vLLM say goes to a file. What is going on is read from that file (stages before the first metrics)
and from the metrics (every step), and told to an observer.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from hydra.core.override_parser.types import Quote, QuotedString

from srpo_verl.cpu.environment import CPU_ENVIRONMENT
from workflows.appended_lines import AppendedLines
from workflows.compose_config import config_place
from workflows.metrics_log import MetricsLog, Record
from workflows.process_tree import ProcessTree
from workflows.run_errors import explain

QUIET_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HYDRA_FULL_ERROR": "1",
    "PYTHONUNBUFFERED": "1",
}

STARTING, RAY, LOADING, VALIDATING, TRAINING, STOPPING = (
    "starting Python",
    "starting Ray",
    "loading model and engine",
    "validating",
    "training",
    "stopping",
)
# The first line of the log that says that a stage has begun.
_STAGE_STARTS = (
    (RAY, re.compile(r"ray init kwargs:")),
    (LOADING, re.compile(r"Started a local Ray instance|Connected to Ray cluster")),
    (VALIDATING, re.compile(r"Creating file logger at")),
)


@dataclass(frozen=True)
class RunFiles:
    """Where a run keeps what."""

    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / "train.log"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.folder / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def teacher_prompts(self) -> Path:
        return self.folder / "teacher_prompts"


class Observer(Protocol):
    """Is told what a run does, as it does it."""

    def stage(self, name: str) -> None: ...

    def record(self, record: Record) -> None: ...


@dataclass
class RunOutcome:
    """A run that ended well."""

    records: list[Record]
    stage_seconds: dict[str, float] = field(default_factory=dict)
    total_seconds: float = 0.0
    peak_memory_bytes: int = 0


class RunFailed(RuntimeError):
    """A run that did not. The message says in which stage and why, and names the log."""


def verl_command(config_name: str, overrides: Mapping[str, object], extra: Sequence[str] = ()) -> list[str]:
    """The command that trains with one of our configs, or one's own by its path; `extra` are Hydra overrides."""
    folder, name = config_place(config_name)
    config = [*(["--config-dir", folder] if folder else []), "--config-name", name]
    settings = [f"{key}={hydra_value(value)}" for key, value in overrides.items()]
    return [sys.executable, "-m", "verl.trainer.main_ppo", *config, *settings, *extra]


def hydra_value(value: object) -> str:
    """`value` as Hydra's override grammar wants it: quoted if it holds more than names, digits and path characters."""
    text = str(value)
    if re.fullmatch(r"[\w./+-]+", text, re.ASCII):
        return text
    return QuotedString(text=text, quote=Quote.single).with_quotes()


def run_environment(files: RunFiles, *, cpu: bool, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of the child: where metrics go, no telemetry, a Ray of its own.

    What the caller has set to suit the machine (OMP_NUM_THREADS, VLLM_CPU_KVCACHE_SPACE, ...) stays as it is.
    """
    base = dict(os.environ if base is None else base)
    base.pop("PYTHONDONTWRITEBYTECODE", None)  # without bytecode every start is minutes slower
    defaults = {**QUIET_ENVIRONMENT, **(CPU_ENVIRONMENT if cpu else {})}
    places = {"VERL_FILE_LOGGER_PATH": str(files.metrics), "TENSORBOARD_DIR": str(files.tensorboard)}
    # Without an address Ray joins any cluster that runs on this machine, whose settings are others.
    return {**defaults, **base, **places, "RAY_ADDRESS": "local"}


def watch(
    command: Sequence[str],
    *,
    files: RunFiles,
    env: Mapping[str, str],
    observer: Observer,
    timeout: float,
    poll: float = 0.5,
) -> RunOutcome:
    """Run `command` to its end, or raise RunFailed. On every way out, also Ctrl-C, its processes are gone."""
    files.folder.mkdir(parents=True, exist_ok=True)
    outcome = RunOutcome(records=[])
    log, metrics = _LogStages(files.log), MetricsLog(files.metrics)
    started = stage_started = time.monotonic()
    memory_read = -1e9
    stage = STARTING
    observer.stage(stage)

    def enter(name: str) -> None:
        nonlocal stage, stage_started
        if name == stage:
            return
        now = time.monotonic()
        outcome.stage_seconds[stage] = outcome.stage_seconds.get(stage, 0.0) + now - stage_started
        stage, stage_started = name, now
        observer.stage(name)

    with ProcessTree(command, log=files.log, env=env) as tree:
        while True:
            code = tree.poll()
            for name in log.read_new():
                if not outcome.records:
                    enter(name)
            if not metrics.path.exists():
                metrics = MetricsLog(files.metrics)  # the trainer may choose the place when it starts
            for record in metrics.read_new():
                enter(TRAINING)
                outcome.records.append(record)
                observer.record(record)
            if code is not None:
                break
            now = time.monotonic()
            if now - started > timeout:
                reason = (
                    f"not finished after {timeout:.0f} s (--timeout), {now - stage_started:.0f} s of them in this stage"
                )
                raise RunFailed(_failure(stage, f"{reason}. The log ends with:\n{_last_lines(files.log)}", files.log))
            if now - memory_read > 5:
                memory_read = now
                outcome.peak_memory_bytes = max(outcome.peak_memory_bytes, tree.memory_bytes())
            time.sleep(poll)
        if code != 0:
            text = files.log.read_text(errors="replace")
            raise RunFailed(_failure(stage, f"{_exit_reason(code)}\n{explain(text)}", files.log))
        enter(STOPPING)
    enter("")
    outcome.total_seconds = time.monotonic() - started
    return outcome


class _LogStages:
    """Follows the log and names the stages whose first line has appeared."""

    def __init__(self, path: Path):
        self._lines = AppendedLines(path)
        self._pending = list(_STAGE_STARTS)

    def read_new(self) -> list[str]:
        if not self._pending:
            return []
        begun = []
        for raw in self._lines.read_new():
            line = raw.decode(errors="replace")
            for index, (name, pattern) in enumerate(self._pending):
                if pattern.search(line):
                    begun.append(name)
                    del self._pending[: index + 1]
                    break
        return begun


def _failure(stage: str, reason: str, log: Path) -> str:
    return f"The run failed while {stage}: {reason}\nThe whole log: {log}"


def _exit_reason(code: int) -> str:
    if code >= 0:
        return f"exit code {code}."
    name = signal.Signals(-code).name
    hint = " (out of memory? `dmesg` tells)" if name == "SIGKILL" else ""
    return f"ended by {name}{hint}."


def _last_lines(log: Path, count: int = 5) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-count:]) or "(nothing)"
