"""Tools on an event loop of their own, so that none can stop the agent loops. No verl.

A tool may block its event loop, never return from a thread, or raise SystemExit. On the worker's own loop the first
would stop all its rollouts, and the second, often enough, take the threads that verl tokenises in.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
# Seconds in which an event loop that is not blocked runs a function that does nothing.
PATIENCE = 1.0
# Calls of functions at once, in a worker; most of so many do not come back.
MOST_THREADS = 1024


class NoAnswer(Exception):
    """The deadline has passed."""


class ToolFailed(Exception):
    """A tool tried to end its process or thread."""


class ToolThread:
    """Runs coroutines in a thread of its own, which is replaced when one of them blocks it.

    What has not begun there is begun in the next one; what has waits for its answer as long as its deadline lets it.
    No call begins twice, nor after its deadline. A thread that was replaced ends once what has begun in it has ended.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, call: Callable[[], Awaitable[T]], deadline: float | None) -> T:
        """What `call()` gives, awaited in the thread.

        Args:
            deadline: in seconds; None waits for ever.

        Raises:
            NoAnswer: nothing by then. The call is cancelled if it can be; one that blocks is left behind.
            ToolFailed: SystemExit or KeyboardInterrupt in the call. Other exceptions come out as they are.
        """
        end = math.inf if deadline is None else time.monotonic() + deadline
        while True:
            if end <= time.monotonic():
                raise NoAnswer
            loop = self._loop = self._loop if self._loop is not None and self._loop.is_running() else _started()
            ticket = _Ticket()
            running = asyncio.run_coroutine_threadsafe(_guarded(call, ticket), loop)
            waiting = asyncio.wrap_future(running)
            while True:
                left = end - time.monotonic()
                done, _ = await asyncio.wait([waiting], timeout=max(min(left, PATIENCE), 0))
                if done:
                    return waiting.result()
                if left <= 0:
                    ticket.withdraw()
                    running.cancel()
                    raise NoAnswer
                if not await _answers(loop):
                    if self._loop is loop:
                        self._loop = None
                        asyncio.run_coroutine_threadsafe(_retire(loop), loop)
                    if ticket.withdraw():
                        break


class _Ticket:
    """Of a call, which begins or is withdrawn, whichever comes first. One that asyncio cancels begins all the same."""

    def __init__(self) -> None:
        self._free = threading.Lock()

    def begin(self) -> bool:
        return self._free.acquire(blocking=False)

    def withdraw(self) -> bool:
        return self._free.acquire(blocking=False)


async def _guarded(call: Callable[[], Awaitable[T]], ticket: _Ticket) -> T:
    if not ticket.begin():
        raise NoAnswer
    try:
        return await call()
    except (SystemExit, KeyboardInterrupt) as error:
        raise ToolFailed(f"{type(error).__name__}: {error}") from error


async def _nothing() -> None:
    return


async def _retire(loop: asyncio.AbstractEventLoop) -> None:
    """Stops a loop that was replaced, once it is free and what has begun there has ended."""
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)
    loop.stop()


async def _answers(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        probe = asyncio.run_coroutine_threadsafe(_nothing(), loop)
    except RuntimeError:  # closed: all that had begun there has ended
        return True
    done, _ = await asyncio.wait([asyncio.wrap_future(probe)], timeout=PATIENCE)
    return bool(done)


def _started() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_default_executor(_ThreadPerCall())
    ready = threading.Event()
    loop.call_soon(ready.set)

    def serve() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.close()

    threading.Thread(target=serve, name="tools", daemon=True).start()
    ready.wait()
    return loop


class _ThreadPerCall(ThreadPoolExecutor):
    """A daemon thread for each call: one that never returns holds up neither the others nor the end of the process."""

    def __init__(self) -> None:
        super().__init__(max_workers=1)
        self._running = threading.BoundedSemaphore(MOST_THREADS)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        if not self._running.acquire(blocking=False):
            raise RuntimeError(f"{MOST_THREADS} calls of tools have not returned, so no other can begin")
        future: Future = Future()

        def work() -> None:
            try:
                if future.set_running_or_notify_cancel():
                    try:
                        future.set_result(function(*args, **kwargs))
                    except BaseException as error:  # noqa: BLE001 - it goes to whoever waits
                        future.set_exception(error)
            finally:
                self._running.release()

        threading.Thread(target=work, name="tool", daemon=True).start()
        return future
