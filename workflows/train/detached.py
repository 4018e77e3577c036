"""`srpo train --detach`: the same command in a session of its own, which goes on when this one returns.

What it says until it has the run's folder, checks included, is passed on here; after that it goes to `console.log`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

DETACHED = "SRPO_DETACHED"  # set for the process that goes on
CONSOLE = "console.log"
_CLAIMED = "it has the folder"  # its last words into the pipe


def start_detached(words: Sequence[str], out: Path) -> int:
    """Starts `srpo train *words`; returns its exit code if it ends before it has `out`, 0 once it has."""
    process = subprocess.Popen(
        [sys.executable, "-m", "workflows.cli", "train", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, DETACHED: "1"},
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.decode(errors="replace").strip() == _CLAIMED:
            break
        print(line.decode(errors="replace"), end="", flush=True)
    else:
        return process.wait()
    print(
        f"It goes on without this command (pid {process.pid}, {out / CONSOLE}).\n"
        f"  srpo attach {out}    shows it\n  srpo stop {out}      ends it with a checkpoint\n"
        f"  srpo status {out}    says how it is"
    )
    return 0


def claimed(folder: Path) -> None:
    """In the process that goes on: from here on it writes into the run's folder."""
    if not os.environ.pop(DETACHED, None):
        return
    print(_CLAIMED, flush=True)
    with open(folder / CONSOLE, "ab") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
