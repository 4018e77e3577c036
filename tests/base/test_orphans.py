"""Shared memory and sockets are removed when nobody uses them, and only then."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from multiprocessing import shared_memory

import pytest

from srpo_verl.base import orphans
from srpo_verl.base.orphans import remove_orphans

# Makes a segment as verl does, holds it by its mapping alone, says so, and is killed, as its tracker is.
HOLD = """
import os, sys
from multiprocessing import resource_tracker, shared_memory
segment = shared_memory.SharedMemory(name=sys.argv[1], create=True, size=4096)
resource_tracker.unregister(segment._name, "shared_memory")
os.close(segment._fd)
print("there", flush=True)
sys.stdin.read()
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def name():
    found = f"srpo_test_{os.getpid()}"
    yield found
    try:
        segment = shared_memory.SharedMemory(name=found)
    except FileNotFoundError:
        return
    segment.close()
    segment.unlink()


def test_a_segment_stays_while_it_is_mapped_and_goes_when_its_owner_was_killed(name):
    owner = subprocess.Popen([sys.executable, "-c", HOLD, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdout.readline() == b"there\n"
    assert remove_orphans(f"/dev/shm/{name}*") == []
    owner.communicate()
    assert [path.name for path in remove_orphans(f"/dev/shm/{name}*")] == [name]
    assert not os.path.exists(f"/dev/shm/{name}")


def test_a_socket_stays_while_somebody_listens(tmp_path, monkeypatch):
    monkeypatch.setattr(orphans, "_YOUNG", -1.0)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "a.sock"))
        listener.listen()
        assert remove_orphans(f"{tmp_path}/*.sock") == []
    monkeypatch.setattr(orphans, "_YOUNG", 60.0)
    assert remove_orphans(f"{tmp_path}/*.sock") == []  # it may be about to listen
    monkeypatch.setattr(orphans, "_YOUNG", -1.0)
    assert len(remove_orphans(f"{tmp_path}/*.sock")) == 1


def test_what_belongs_to_others_or_is_a_folder_stays(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert remove_orphans(f"{tmp_path}/*") == []
