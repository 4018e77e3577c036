"""Processes by what nobody else has: host, boot, table of process ids, id, and the moment of their start.

A process id alone is taken again after its owner's death, and two containers with one host name have two tables.
"""

from __future__ import annotations

import os
import socket
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class Place:
    """Where process ids mean the same: a host's name, its boot, and the pid namespace."""

    host: str
    boot: str
    pids: str


@cache
def this_place() -> Place:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        pids = os.readlink("/proc/self/ns/pid")
    except OSError:  # hidden by a sandbox: then no other process is known to share this place
        boot = pids = uuid.uuid4().hex
    return Place(socket.gethostname(), boot, pids)


@dataclass(frozen=True)
class ProcessId:
    """`start` in the kernel's ticks since boot, which no change of the clock moves."""

    place: Place
    pid: int
    start: int

    @classmethod
    def of(cls, pid: int | None = None, place: Place | None = None) -> ProcessId:
        """Of a live process (this one) of this machine. Raises ProcessLookupError if there is none."""
        pid = os.getpid() if pid is None else pid
        found = _state(pid)
        if found is None:
            raise ProcessLookupError(f"there is no process {pid}")
        return cls(place or this_place(), pid, found[1])

    @classmethod
    def from_json(cls, read: dict[str, Any]) -> ProcessId:
        """Raises KeyError, TypeError for what is none."""
        return cls(Place(**read["place"]), int(read["pid"]), int(read["start"]))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"host {self.place.host}, pid {self.pid}"

    def alive(self, here: Place | None = None) -> bool | None:
        """Whether it lives; None where it cannot be asked, because it is of another place than `here` (this one)."""
        if self.place != (here or this_place()):
            return None
        found = _state(self.pid)
        if found is None and _hidden(self.pid):
            return None
        return found is not None and found[1] == self.start and found[0] not in "ZX"

    def suspended(self) -> bool:
        """Whether a signal has stopped it (SIGSTOP, Ctrl-Z)."""
        found = _state(self.pid)
        return found is not None and found[1] == self.start and found[0] in "Tt"


def _state(pid: int) -> tuple[str, int] | None:
    """State letter and start of a process, None if there is none."""
    try:
        # The name, in parentheses, may hold anything.
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return words[0], int(words[19])


def _hidden(pid: int) -> bool:
    """Whether another user has it, and /proc does not show those (hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def family_of(variable: str, value: str) -> list[psutil.Process]:
    """Every live process of ours that has `variable` set to `value` in its environment, and their descendants."""
    return [process for process in family(variable, value, set()) if is_live(process)]


def family(variable: str, value: str, known: set[psutil.Process]) -> set[psutil.Process]:
    """`known`, the processes marked by the variable, and all their descendants; not this process."""
    children: dict[int, list[psutil.Process]] = {}
    members = set(known)
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess):
            children.setdefault(process.ppid(), []).append(process)
            if _marked(process, variable) == value:
                members.add(process)
    queue = list(members)
    while queue:
        for child in children.get(queue.pop().pid, []):
            if child not in members:
                members.add(child)
                queue.append(child)
    return {process for process in members if process.pid != os.getpid()}


def is_live(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _marked(process: psutil.Process, variable: str) -> str | None:
    try:
        if process.uids().real != os.getuid():
            return None
        return process.environ().get(variable)
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return None
