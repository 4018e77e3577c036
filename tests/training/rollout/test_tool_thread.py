"""Calls on a loop of their own: one that blocks it holds up neither the caller's loop nor other calls."""

import asyncio
import threading
import time
from collections import Counter

import pytest

from srpo_verl.training.rollout import tool_thread
from srpo_verl.training.rollout.tool_thread import NoAnswer, ToolFailed, ToolThread
from tests.patience import PROCESS


async def five():
    return 5


def test_answers_and_exceptions_come_out():
    async def wrong():
        raise KeyError("x")

    async def leaves():
        raise SystemExit(2)

    thread = ToolThread()
    assert asyncio.run(thread.run(five, None)) == 5
    with pytest.raises(KeyError):
        asyncio.run(thread.run(wrong, 30))
    with pytest.raises(ToolFailed, match="SystemExit: 2"):
        asyncio.run(thread.run(leaves, 30))
    assert asyncio.run(thread.run(five, 30)) == 5


def test_while_one_blocks_the_others_are_answered_elsewhere(monkeypatch):
    """Without a deadline that could end the wait: those that have not begun begin in another thread."""
    monkeypatch.setattr(tool_thread, "PATIENCE", 0.05)
    release, blocked = threading.Event(), threading.Event()

    async def blocks():
        blocked.set()
        release.wait(60)
        return "late"

    async def all_of_them():
        thread = ToolThread()
        first = asyncio.create_task(thread.run(blocks, None))
        await asyncio.to_thread(blocked.wait)
        found = await asyncio.gather(*(thread.run(five, None) for _ in range(5)))
        release.set()
        return found, await first

    assert asyncio.run(all_of_them()) == ([5] * 5, "late")


def test_a_call_that_waits_is_cancelled_at_its_deadline():
    cancelled = threading.Event()

    async def waits():
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    with pytest.raises(NoAnswer):
        asyncio.run(ToolThread().run(waits, 0.1))
    assert cancelled.wait(PROCESS)


def test_too_many_functions_that_do_not_return_are_refused(monkeypatch):
    monkeypatch.setattr(tool_thread, "MOST_THREADS", 2)
    release = threading.Event()

    async def calls():
        thread = ToolThread()
        hanging = [thread.run(lambda: asyncio.to_thread(release.wait, 60), 0.1) for _ in range(2)]
        found = await asyncio.gather(*hanging, return_exceptions=True)
        with pytest.raises(RuntimeError, match="2 calls of tools have not returned"):
            await thread.run(lambda: asyncio.to_thread(int), 30)
        release.set()
        return found

    assert [type(one) for one in asyncio.run(calls())] == [NoAnswer] * 2


def test_no_call_begins_twice_or_after_its_deadline_and_threads_that_were_replaced_end(monkeypatch):
    monkeypatch.setattr(tool_thread, "PATIENCE", 0.05)
    release, counts = threading.Event(), Counter()

    def blocking(name):
        async def call():
            counts[name] += 1
            release.wait(60)
            return name

        return call

    async def all_of_them():
        thread = ToolThread()
        calls = [asyncio.create_task(thread.run(blocking(number), None)) for number in range(4)]
        while len(counts) < 4:  # each in a thread of its own in the end
            await asyncio.sleep(0.01)
        # In a loop that is blocked before the call can begin there, its deadline passes.
        thread._loop = tool_thread._started()
        thread._loop.call_soon_threadsafe(release.wait, 60)
        with pytest.raises(NoAnswer):
            await thread.run(blocking("late"), 0.02)
        release.set()
        return await asyncio.gather(*calls)

    before = set(threading.enumerate())
    assert asyncio.run(all_of_them()) == [0, 1, 2, 3]
    assert counts == {0: 1, 1: 1, 2: 1, 3: 1}
    started = [thread for thread in threading.enumerate() if thread.name == "tools" and thread not in before]
    deadline = time.monotonic() + PROCESS
    while len([thread for thread in started if thread.is_alive()]) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len([thread for thread in started if thread.is_alive()]) <= 1, "only the one in use is left"
