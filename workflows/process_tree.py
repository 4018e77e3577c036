"""A command whose whole family of processes can be found again and ended.

Ray's daemons and workers leave the process group of the program that started them, and outlive it when it dies badly.
So the family is what the command's environment marks (a variable with a unique value, inherited by every descendant),
what descends from such a process, and what was once seen to.
"""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

TAG = "SRPO_RUN_TAG"


class ProcessTree:
    """`command` in a session of its own, output appended to `log`, input closed.

    Use as a context manager: on leaving it, for whatever reason, nothing of the family is left running.
    """

    def __init__(self, command: Sequence[str], *, log: Path, env: Mapping[str, str], cwd: Path | None = None):
        self.tag = uuid.uuid4().hex
        self.log = log
        self._seen: set[psutil.Process] = set()
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # setproctitle, which Ray's workers call, would otherwise write the title over the environment.
                env={**env, TAG: self.tag, "SPT_NOENV": "1"},
                cwd=cwd,
                start_new_session=True,
            )

    def __enter__(self) -> ProcessTree:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def poll(self) -> int | None:
        """The exit code of the command, None while it runs."""
        return self.process.poll()

    def members(self) -> list[psutil.Process]:
        """Every live process of the family, wherever it has been reparented to."""
        known = {process for process in self._seen if process.is_running()}
        with suppress(psutil.NoSuchProcess):
            known.add(psutil.Process(self.process.pid))
        self._seen = _family(TAG, self.tag, known)
        return [process for process in self._seen if _alive(process)]

    def memory_bytes(self) -> int:
        """Memory of the family; pages that processes share are counted once (PSS)."""
        total = 0
        for process in self.members():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_full_info().pss
        return total

    def kill(self, *, grace: float = 5.0) -> None:
        """End the family: SIGTERM, `grace` seconds, SIGKILL, and again for what was born meanwhile."""
        family = self.members()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        psutil.wait_procs(family, timeout=grace)
        deadline = time.monotonic() + 10
        while family := self.members():
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(family, timeout=1)
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes that SIGKILL does not end: {[process.pid for process in family]}")
        self.process.wait()


def family_of(variable: str, value: str) -> list[psutil.Process]:
    """Every live process of ours that has `variable` set to `value` in its environment, and their descendants."""
    return [process for process in _family(variable, value, set()) if _alive(process)]


def _family(variable: str, value: str, known: set[psutil.Process]) -> set[psutil.Process]:
    """`known`, the processes marked by the variable, and all their descendants."""
    children: dict[int, list[psutil.Process]] = {}
    family = set(known)
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess):
            children.setdefault(process.ppid(), []).append(process)
            if _marked(process, variable) == value:
                family.add(process)
    queue = list(family)
    while queue:
        for child in children.get(queue.pop().pid, []):
            if child not in family:
                family.add(child)
                queue.append(child)
    return family


def _marked(process: psutil.Process, variable: str) -> str | None:
    try:
        if process.uids().real != os.getuid():
            return None
        return process.environ().get(variable)
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return None


def _alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
