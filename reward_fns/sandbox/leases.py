"""Machine-wide leases over numbers, as file locks: run slots, and user ids for sandboxes.

A lock disappears with the process that holds it, so nothing leaks when a worker is killed.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from pathlib import Path


class Leases:
    """Numbers 0 .. ``size`` - 1 of which each is held by at most one holder on this machine."""

    def __init__(self, name: str, size: int):
        self.size = size
        self._folder = Path(tempfile.gettempdir()) / f"srpo_verl_{name}_{os.getuid()}"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        found = self._folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise PermissionError(f"{self._folder} must be a directory of this user with mode 700; remove it")

    def try_acquire(self) -> Lease | None:
        """A free number, or None."""
        offset = os.getpid()
        for index in range(self.size):
            number = (index + offset) % self.size
            fd = os.open(self._folder / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                continue
            return Lease(number, fd)
        return None

    def acquire(self, timeout: float) -> Lease:
        """A free number, waiting for one if need be."""
        end = time.monotonic() + timeout
        while True:
            lease = self.try_acquire()
            if lease is not None:
                return lease
            if time.monotonic() > end:
                raise TimeoutError(f"no free lease in {self._folder} after {timeout:g} s")
            time.sleep(0.003)


class Lease:
    """One number, held until :meth:`release`."""

    def __init__(self, number: int, fd: int):
        self.number = number
        self._fd = fd

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
