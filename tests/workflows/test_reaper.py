"""A program that is killed takes what it started with it, wherever Ray's daemons went, and their shared memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from srpo_verl.base.processes import family_of
from tests.patience import PROCESS
from workflows.reaper import TAG

REPOSITORY = Path(__file__).parents[2]

# Starts a family in a `ProcessTree` (a child, and one of it that left its session), says its tag, and waits.
PARENT = """
import os, sys, time
from pathlib import Path
from workflows.process_tree import ProcessTree
child = (
    "import subprocess, sys, time; "
    "subprocess.Popen([sys.executable, '-c', sys.argv[1]], start_new_session=True); time.sleep(600)"
)
with ProcessTree([sys.executable, "-c", child, sys.argv[2]], log=Path(sys.argv[1]), env=os.environ) as tree:
    while len(tree.members()) < 2:
        time.sleep(0.01)
    print(tree.tag, flush=True)
    time.sleep(600)
"""
# Ignores what is polite, and holds shared memory of verl's name.
GRANDCHILD = """
import signal, time
from multiprocessing import resource_tracker, shared_memory
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
segment = shared_memory.SharedMemory(name="{name}", create=True, size=4096)
resource_tracker.unregister(segment._name, "shared_memory")
time.sleep(600)
"""


@pytest.mark.parametrize("whole_group", [False, True], ids=["the program", "its process group"])
def test_sigkill_of_the_program_ends_its_family_and_frees_its_shared_memory(whole_group, tmp_path):
    memory = Path(f"/dev/shm/verl_weights_test_{os.getpid()}_{whole_group}")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log"), GRANDCHILD.format(name=memory.name)],
        stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    tag = parent.stdout.readline().strip()
    family = family_of(TAG, tag)
    assert len(family) >= 2
    while not memory.exists():
        time.sleep(0.01)
    (os.killpg if whole_group else os.kill)(parent.pid, signal.SIGKILL)
    parent.wait()
    assert psutil.wait_procs(family, timeout=PROCESS)[1] == []
    deadline = time.monotonic() + PROCESS
    while memory.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
