"""Ends a family of processes when the program that started it is gone, even if that was killed by SIGKILL.

    python -m workflows.reaper TAG     with a pipe as input, of which that program holds the other end

The kernel closes the pipe with the program, whatever ended it. The reaper is a process of its own, in a session of its
own, because nothing inside the family is sure to notice: a trainer can be waiting in C code, and Ray's daemons outlive
the process that started them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from srpo_verl.base.lease import TOKEN
from srpo_verl.base.processes import family, is_live
from srpo_verl.verl_names.leftovers import remove_leftovers

TAG = "SRPO_RUN_TAG"


def start_reaper(tag: str) -> subprocess.Popen:
    """For processes whose environment has `tag`. It ends when its `stdin` is closed, once none of them is left."""
    unmarked = {name: value for name, value in os.environ.items() if name not in (TAG, TOKEN)}
    return subprocess.Popen(
        [sys.executable, "-m", "workflows.reaper", tag],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**unmarked, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        start_new_session=True,
    )


def end_family(members: Callable[[], list[psutil.Process]], *, grace: float = 0.0) -> None:
    """SIGTERM, `grace` seconds, SIGKILL, and again for what was born meanwhile.

    Raises RuntimeError if SIGKILL does not end them.
    """
    if grace:
        first = members()
        for process in first:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        psutil.wait_procs(first, timeout=grace)
    deadline = time.monotonic() + 10
    while left := members():
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=1)
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes that SIGKILL does not end: {[process.pid for process in left]}")


def main(tag: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # what ends a group or a session must not end this first
    sys.stdin.buffer.read()
    known: set[psutil.Process] = set()

    def members() -> list[psutil.Process]:
        nonlocal known
        known = family(TAG, tag, {process for process in known if process.is_running()})
        return [process for process in known if is_live(process)]

    end_family(members)
    remove_leftovers()


if __name__ == "__main__":
    main(sys.argv[1])
