"""One of several gets a folder, a live holder keeps it, a dead one's is taken over, and a late one does not write."""

from __future__ import annotations

import dataclasses
import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from srpo_verl.base import lease_files as files
from srpo_verl.base.lease import TOKEN, FolderTakenError, LeaseLostError, LeaseTimes, describe, take
from srpo_verl.base.processes import ProcessId, this_place
from tests.base.lease_contender import contend, elsewhere
from tests.clock import Clock
from tests.patience import PROCESS

ROUNDS = 50
MOUNTS = "SRPO_TEST_MOUNTS"
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def dead():
    """A process of this machine that has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    found = ProcessId.of(child.pid)
    child.communicate()
    return found


@pytest.mark.parametrize(
    ("hosts", "after_a_dead_one"),
    [(("local", "local"), False), (("local", "other"), False), (("local", "local"), True)],
    ids=["local", "a second host", "after a dead one"],
)
def test_of_two_starts_at_the_same_moment_exactly_one_trains(hosts, after_a_dead_one, dead, tmp_path):
    for number in range(ROUNDS if after_a_dead_one else 0):
        take(tmp_path / str(number), here=dead)
    check_exactly_one_trains(hosts, [tmp_path, tmp_path])


@pytest.mark.skipif(MOUNTS not in os.environ, reason=f"{MOUNTS} names no two mounts, A:B, of one folder")
def test_over_two_mounts_of_one_folder_of_a_file_server_exactly_one_trains():
    name = f"srpo_{os.getpid()}"
    folders = [Path(mount, name) for mount in os.environ[MOUNTS].split(":")]
    folders[0].mkdir()
    try:
        check_exactly_one_trains(("local", "other"), folders)
    finally:
        while folders[0].exists():  # a mount sees what was written through the other a moment later
            shutil.rmtree(folders[0], ignore_errors=True)
            time.sleep(0.2)


def check_exactly_one_trains(hosts, folders):
    """`ROUNDS` times both want a folder at once, each by its own path to it."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(len(hosts)), context.Queue()
    sides = [
        context.Process(target=contend, args=(str(folder), ROUNDS, f"{name}{host}", host, barrier, results))
        for name, (host, folder) in enumerate(zip(hosts, folders, strict=True))
    ]
    for side in sides:
        side.start()
    told = [results.get(timeout=PROCESS) for _ in range(2 * ROUNDS)]
    for side in sides:
        side.join(PROCESS)
    for number in range(ROUNDS):
        said = sorted(words for at, _, words in told if at == number)
        assert said.count("trains") == 1, said
        assert "srpo attach" in said[0]
        assert len((folders[0] / str(number) / "metrics.jsonl").read_text().splitlines()) == 1


def test_a_refusal_names_the_owner_and_what_one_can_do(tmp_path):
    lease = take(tmp_path)
    lease.note(step=7, doing="gen")
    lease.beat()
    with pytest.raises(FolderTakenError) as refused:
        take(tmp_path)
    said = str(refused.value)
    assert f"run {lease.token} (host {this_place().host}, pid {os.getpid()})" in said
    assert f"training since {time.strftime('%Y-%m-%d')}" in said
    assert "at step 7" in said
    for way in ("srpo attach", "srpo stop", "take another folder"):
        assert way in said
    lease.release("ended")
    take(tmp_path)


def test_a_dead_owner_of_this_machine_is_taken_over_at_once_and_in_words(dead, tmp_path):
    old, told = take(tmp_path, here=dead), []
    new = take(tmp_path, tell=told.append, sleep=pytest.fail)
    assert told == [
        f"run {old.token} (host {this_place().host}, pid {dead.pid}) is dead, so its folder {tmp_path} is taken over"
    ]
    assert new.record.generation == old.record.generation + 1
    with pytest.raises(LeaseLostError, match="was taken over by"):
        old.check()


def test_a_process_id_that_is_used_again_is_not_the_owner(tmp_path):
    mine = ProcessId.of()
    take(tmp_path, here=dataclasses.replace(mine, start=mine.start - 1))
    take(tmp_path, sleep=pytest.fail)


def test_processes_that_a_dead_owner_has_left_are_ended(dead, tmp_path, monkeypatch):
    monkeypatch.setattr("srpo_verl.base.lease.ENDING_BY_THEMSELVES", 0.1)
    old = take(tmp_path, here=dead)
    orphan = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={**os.environ, TOKEN: old.token}
    )
    left, told = ProcessId.of(orphan.pid), []
    take(tmp_path, tell=told.append)
    assert not left.alive()
    assert str(orphan.pid) in told[-1]
    orphan.communicate()


def test_a_live_owner_of_another_host_is_never_taken_over(tmp_path):
    """Even if its clock is an hour off: only its signs count. It gives one just before the time is up."""
    owner = take(tmp_path, here=elsewhere(), clock=Clock())
    told, clock = [], Clock()
    clock.meanwhile = lambda: clock.now > 185 and owner.beat()
    with pytest.raises(FolderTakenError, match="belongs to run"):
        take(tmp_path, tell=told.append, clock=clock, sleep=clock.sleep)
    assert len(told) == 1
    assert "waiting up to 190 s" in told[0]
    owner.check()


def test_a_dead_owner_of_another_host_is_taken_over_after_its_time_out(tmp_path):
    owner = take(tmp_path, here=elsewhere(), times=LeaseTimes(interval=2, timeout=30))
    clock = Clock()
    take(tmp_path, clock=clock, sleep=clock.sleep)
    assert 34 < clock.now < 36
    with pytest.raises(LeaseLostError, match="was taken over by"):
        owner.beat()


def test_one_that_was_silent_for_too_long_gives_up_by_itself(tmp_path):
    """Whoever watches it from another host may be about to take the folder."""
    clock = Clock()
    lease = take(tmp_path, clock=clock)
    clock.now = lease.record.timeout
    lease.beat()
    clock.now += lease.record.timeout + 1
    for act in (lease.beat, lease.check):
        with pytest.raises(LeaseLostError, match="no sign of life"):
            act()


def test_a_holder_that_is_suspended_and_wakes_up_writes_nothing_more(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.base.lease_contender", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    try:
        child.stdout.readline()
        child.send_signal(signal.SIGSTOP)
        while not ProcessId.of(child.pid).suspended():
            time.sleep(0.01)
        with pytest.raises(FolderTakenError, match=f"kill -CONT {child.pid}"):
            take(tmp_path)  # on its own machine it is seen to be there
        clock = Clock()
        new = take(tmp_path, here=elsewhere(), clock=clock, sleep=clock.sleep)
        before = (tmp_path / "metrics.jsonl").read_text()
        sign = files.sign_of_life(tmp_path, new.record.generation)
        child.send_signal(signal.SIGCONT)
        assert "was taken over by" in child.communicate(timeout=PROCESS)[0]
    finally:
        child.kill()
    assert child.returncode == 3
    assert (tmp_path / "metrics.jsonl").read_text() == before
    assert files.sign_of_life(tmp_path, new.record.generation) == sign
    new.check()


def test_a_folder_is_handed_on_along_the_processes_of_one_run(tmp_path):
    command = take(tmp_path)
    trainer = take(tmp_path, token=command.token, here=elsewhere())
    assert trainer.record.since == command.record.since
    assert command.handed_on
    command.check()
    clock = Clock(trainer.beat)
    with pytest.raises(FolderTakenError):
        take(tmp_path, clock=clock, sleep=clock.sleep)
    command.release("not mine to end")
    trainer.check()
    assert files.read_end(tmp_path, trainer.record.generation) is None
    trainer.release("ended")
    take(tmp_path)


def test_a_holder_whose_starter_has_died_is_waited_for(dead, tmp_path):
    """It is about to end: `srpo train` was killed, and its training notices."""
    first = take(tmp_path, here=dead)
    holder = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    take(tmp_path, token=first.token, here=ProcessId.of(holder.pid))
    told = []
    clock = Clock(holder.communicate)
    take(tmp_path, tell=told.append, clock=clock, sleep=clock.sleep)
    assert "is ending, since what started it has died" in told[0]
    first = take(tmp_path / "2", here=dead)
    take(tmp_path / "2", token=first.token, here=ProcessId.of())
    clock = Clock()
    with pytest.raises(FolderTakenError):  # not for ever
        take(tmp_path / "2", clock=clock, sleep=clock.sleep)
    assert 80 < clock.now < 100


def test_a_copy_of_a_running_runs_folder_is_free_after_the_time_out(tmp_path):
    lease = take(tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    clock = Clock(lease.beat)
    take(tmp_path / "copy", clock=clock, sleep=clock.sleep)
    assert clock.now > lease.record.timeout
    lease.check()


def test_a_folder_that_is_moved_away_is_noticed(tmp_path):
    lease = take(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    with pytest.raises(LeaseLostError, match="moved or removed"):
        lease.beat()


def test_a_full_disk_costs_no_lease(tmp_path, monkeypatch):
    """Signs of life are written in place; where even that has no room, their time is one."""
    owner = take(tmp_path, here=elsewhere())
    monkeypatch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    clock = Clock(owner.beat)
    with pytest.raises(FolderTakenError):
        take(tmp_path, clock=clock, sleep=clock.sleep)
    assert owner.error is None


def test_file_systems_without_links_and_half_written_records(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    owner = take(tmp_path)
    with pytest.raises(FolderTakenError):
        take(tmp_path)
    (tmp_path / files.FOLDER / "00000001.json").write_text("{")
    clock = Clock()
    take(tmp_path, clock=clock, sleep=clock.sleep)
    assert clock.now > owner.record.timeout


def test_a_late_claim_of_a_forgotten_number_is_none(tmp_path):
    stale = take(tmp_path).record
    for _ in range(8):
        lease = take(tmp_path, token=stale.token)
    assert files.generations(tmp_path) == [5, 6, 7, 8, 9]
    assert not files.claim(tmp_path, dataclasses.replace(stale, token="late", generation=2))
    assert files.generations(tmp_path)[0] == 5
    lease.check()


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        take(tmp_path / "file")


def test_requests_are_for_one_run(tmp_path):
    first = take(tmp_path)
    files.ask_to_stop(tmp_path, first.token, files.StopRequest("srpo stop", None))
    assert first.stop_request() == files.StopRequest("srpo stop", None)
    first.release("stopped")
    assert take(tmp_path).stop_request() is None


def test_the_thread_says_that_the_folder_is_lost(tmp_path):
    said = multiprocessing.get_context("spawn").SimpleQueue()
    lease = take(tmp_path, here=elsewhere(), times=LeaseTimes(interval=0.01)).keep(said.put)
    files.claim(tmp_path, dataclasses.replace(lease.record, generation=2, token="other"))
    assert "was taken over by run other" in said.get()


def test_a_file_server_that_fails_for_a_moment_ends_no_heartbeat(tmp_path, monkeypatch):
    lease = take(tmp_path, times=LeaseTimes(interval=0.01))
    real, failing, failed = files.newest_record, threading.Event(), threading.Event()

    def newest_record(folder):
        if failing.is_set():
            failed.set()
            raise OSError(errno.EIO, "a moment")
        return real(folder)

    monkeypatch.setattr(files, "newest_record", newest_record)
    failing.set()
    lease.keep(every=0.01)
    assert failed.wait(PROCESS)
    failing.clear()
    before = files.sign_of_life(tmp_path, 1)
    deadline = time.monotonic() + PROCESS
    while files.sign_of_life(tmp_path, 1) == before:
        assert time.monotonic() < deadline, "the thread has ended"
        time.sleep(0.01)
    lease.release("ended")


@pytest.mark.parametrize("stolen", [False, True])
def test_after_a_file_server_that_hung_the_next_number_decides(stolen, tmp_path, monkeypatch):
    """Nobody could take the folder while it hung; a watcher that was there first has it now."""
    clock = Clock()
    lease = take(tmp_path, clock=clock)
    real, hangs = files.generations, [True]

    def generations(folder):
        found = real(folder)
        if hangs.pop() if hangs else False:
            clock.now += lease.record.timeout + 20
            if stolen:
                files.claim(tmp_path, dataclasses.replace(lease.record, generation=2, token="other"))
        return found

    monkeypatch.setattr(files, "generations", generations)
    if stolen:
        with pytest.raises(LeaseLostError):
            lease.check()
        return
    lease.check()
    assert lease.record.generation == 2
    lease.beat()
    assert not lease.handed_on


def test_a_record_of_the_next_process_may_be_half_written(tmp_path, monkeypatch):
    lease = take(tmp_path)
    take(tmp_path, token=lease.token)
    real, reads = files.read_record, []

    def read_record(*place):
        reads.append(place)
        return real(*place) if len(reads) > 1 else None

    monkeypatch.setattr(files, "read_record", read_record)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    lease.check()
    assert len(reads) > 1


def test_who_gave_the_folder_away_writes_nothing_more(tmp_path):
    lease = take(tmp_path)
    lease.release("stopped: its time was up", last=True)
    with pytest.raises(LeaseLostError, match="has given"):
        lease.check()
    take(tmp_path)


@pytest.mark.parametrize(("error", "lives"), [(PermissionError, None), (ProcessLookupError, False)])
def test_a_process_that_proc_does_not_show_is_not_dead(error, lives, monkeypatch):
    """`hidepid`: another user's process has no /proc/PID."""
    monkeypatch.setattr("srpo_verl.base.processes._state", lambda pid: None)
    monkeypatch.setattr(os, "kill", lambda pid, number: (_ for _ in ()).throw(error()))
    assert ProcessId(this_place(), 4_000_000, 1).alive() is lives


def test_nobody_is_described_too(tmp_path):
    assert "has not said who it is" in describe(tmp_path, None)


def test_a_lease_that_is_removed_leaves_nothing_and_its_late_holder_does_not_take_the_next_for_its_own(tmp_path):
    late = take(tmp_path / "new")
    take(tmp_path / "new", token=late.token).remove()
    assert list((tmp_path / "new").iterdir()) == []
    take(tmp_path / "new")
    with pytest.raises(LeaseLostError, match="was removed, and is now of run"):
        late.beat()
