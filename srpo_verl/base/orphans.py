"""Shared memory and sockets that processes left behind when they were killed, told from those that are in use.

Asked is the kernel, which knows every user, those in other containers too: a file can be leased for writing only while
nobody has it open or mapped, and a socket whose listener is gone refuses a connection.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import stat
import time
from pathlib import Path

# Of Linux's fcntl.h; Python does not name it. The signal that tells of a file that is opened while leased.
_SETSIG = 10
# A socket is there a moment before it listens.
_YOUNG = 60.0


def remove_orphans(pattern: str) -> list[Path]:
    """Remove files (shared memory) and sockets of this user at `pattern`, a folder and a glob, that nobody uses.

    What the kernel cannot tell of is left. Returns what was removed.
    """
    folder, name = os.path.split(pattern)
    return [path for path in sorted(Path(folder).glob(name)) if _remove_if_unused(path)]


def _remove_if_unused(path: Path) -> bool:
    try:
        found = path.lstat()
        if found.st_uid != os.geteuid():
            return False
        if stat.S_ISSOCK(found.st_mode):
            unused = time.time() - found.st_mtime > _YOUNG and _refuses(path)
            if unused:
                path.unlink()
            return unused
        return stat.S_ISREG(found.st_mode) and _remove_file(path)
    except OSError:  # gone meanwhile, or not ours to touch
        return False


def _remove_file(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        # Should another one look at the same file now, the kernel tells us so by a signal: one that is ignored.
        fcntl.fcntl(descriptor, _SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        path.unlink()
        return True
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EINVAL, errno.EACCES, errno.ENOLCK, errno.ENOENT):
            raise
        return False
    finally:
        os.close(descriptor)


def _refuses(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        return asking.connect_ex(str(path)) == errno.ECONNREFUSED
