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
    (TRAINING, re.compile(r"Training Progress:")),
)
# verl prints its config, then goes from the logger straight to the first step.
_NO_VALIDATION = re.compile(r"'val_before_train': False")


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
        return self.checkpoints / "teacher_prompts"


class Observer(Protocol):
    """Is told what a run does, as it does it."""

    def stage(self, name: str) -> None: ...

    def record(self, record: Record) -> None: ...


@dataclass
class RunOutcome:
    """A run that ended well."""

    records: list[Record]
    stage_seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int = 0

    @property
    def total_seconds(self) -> float:
        """From its start to its end: a run is in one stage or another all the time."""
        return sum(self.stage_seconds.values())


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
    follower = Follower(files, observer)
    outcome, started, memory_read = follower.outcome, follower.started, -1e9
    with ProcessTree(command, log=files.log, env=env) as tree:
        while True:
            code = tree.poll()
            follower.look()
            if code is not None:
                break
            now = time.monotonic()
            if now - started > timeout:
                reason = (
                    f"not finished after {timeout:.0f} s (--timeout), {now - follower.stage_started:.0f} s of them in "
                    f"this stage. The log ends with:\n{_last_lines(files.log)}"
                )
                raise RunFailed(_failure(follower.stage, reason, files.log))
            if now - memory_read > 5:
                memory_read = now
                outcome.peak_memory_bytes = max(outcome.peak_memory_bytes, tree.memory_bytes())
            time.sleep(poll)
        if code != 0:
            text = files.log.read_text(errors="replace")
            raise RunFailed(_failure(follower.stage, f"{_exit_reason(code)}\n{explain(text)}", files.log))
        follower.enter(STOPPING)
    follower.enter("")
    return outcome


class Follower:
    """Reads what a run writes, as it writes it, and tells an observer: for whoever runs it, and for who only looks."""

    def __init__(self, files: RunFiles, observer: Observer):
        self.outcome = RunOutcome(records=[])
        self.stage = STARTING
        self.started = self.stage_started = time.monotonic()
        self._files, self._observer = files, observer
        self._log, self._metrics = _LogStages(files.log), MetricsLog(files.metrics)
        observer.stage(self.stage)

    def enter(self, name: str) -> None:
        """A stage begins, "" after the last."""
        if name == self.stage:
            return
        now, seconds = time.monotonic(), self.outcome.stage_seconds
        seconds[self.stage] = seconds.get(self.stage, 0.0) + now - self.stage_started
        self.stage, self.stage_started = name, now
        self._observer.stage(name)

    def look(self) -> None:
        """What is new since the last look."""
        for name in self._log.read_new():
            if not self.outcome.records:
                self.enter(name)
        if not self._metrics.path.exists():
            self._metrics = MetricsLog(self._files.metrics)  # the trainer may choose the place when it starts
        for record in self._metrics.read_new():
            self.enter(TRAINING)
            self.outcome.records.append(record)
            self._observer.record(record)


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
            if _NO_VALIDATION.search(line):
                self._pending = [stage for stage in self._pending if stage[0] != VALIDATING]
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
