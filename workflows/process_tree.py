"""A command whose whole family of processes can be found again and ended.

Ray's daemons and workers leave the process group of the program that started them, and outlive it when it dies badly.
So the family is what the command's environment marks (a variable with a unique value, inherited by every descendant),
what descends from such a process, and what was once seen to. It ends with this program: a second process, the reaper,
sees to that where this program cannot.
"""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from srpo_verl.base.processes import family, is_live
from workflows.reaper import TAG, end_family, start_reaper


class ProcessTree:
    """`command` in a session of its own, output appended to `log`, input closed.

    Use as a context manager: on leaving it, for whatever reason, nothing of the family is left running.
    """

    def __init__(self, command: Sequence[str], *, log: Path, env: Mapping[str, str], cwd: Path | None = None):
        self.tag = uuid.uuid4().hex
        self.log = log
        self._seen: set[psutil.Process] = set()
        self._reaper = start_reaper(self.tag)  # first: from the first moment of the command on there is one
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
        self._seen = family(TAG, self.tag, known)
        return [process for process in self._seen if is_live(process)]

    def memory_bytes(self) -> int:
        """Memory of the family; pages that processes share are counted once (PSS)."""
        total = 0
        for process in self.members():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_full_info().pss
        return total

    def kill(self, *, grace: float = 5.0) -> None:
        """End the family: SIGTERM, `grace` seconds, SIGKILL, and again for what was born meanwhile."""
        try:
            end_family(self.members, grace=grace)
            self.process.wait()
        finally:
            self._reaper.communicate()
