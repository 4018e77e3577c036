"""The owner's side of the workers: slots, deadlines, replacement of the dead."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from typing import Any

from reward_fns.result import GraderUnavailable, plain

WALL_FACTOR = 4.0
_GRACE = 5.0
_MAX_ANSWER = 16 << 20


class TimedOut(Exception):
    """The call ran into its deadline and its process was killed."""


class Died(Exception):
    """The call's process died under it, twice."""


class Failed(Exception):
    """The call raised; the message names the error."""


def default_size() -> int:
    """Worker processes of one pool: ``SRPO_REWARD_WORKERS``, or one per core up to eight."""
    return int(os.environ.get("SRPO_REWARD_WORKERS") or 0) or max(1, min(8, len(os.sched_getaffinity(0))))


class WorkerPool:
    """``size`` worker processes forked from one server that has imported the modules ``preload``."""

    def __init__(self, preload: str = "", size: int | None = None, memory_mb: int = 0):
        self.size = size or default_size()
        self._preload, self._memory_mb = preload, memory_mb
        self._lock = threading.Lock()
        self._idle: list[socket.socket | None] = [None] * self.size  # None: to be spawned
        self._waiting: deque[queue.SimpleQueue[socket.socket | None]] = deque()
        self._turn = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._ids: dict[socket.socket, int] = {}
        self._next = 0
        self.replaced = 0

    def call(self, target: str, args: list[Any], kwargs: dict[str, Any] | None = None, *, deadline: float) -> Any:
        """Run ``module:function`` on JSON arguments; queueing does not count towards ``deadline`` (CPU seconds).

        Arrays and scalars of numpy become lists and numbers.
        """
        request: dict[str, Any] = {"target": target, "args": args, "kwargs": kwargs or {}, "deadline": deadline}
        request["wall"] = deadline * WALL_FACTOR
        line = json.dumps(request, default=plain).encode() + b"\n"
        worker = self._acquire()
        try:
            for _attempt in (1, 2):
                worker = worker or self._spawn()
                answer = _exchange(worker, line, deadline * WALL_FACTOR + _GRACE)
                if answer is not None:
                    break
                number = self._kill(worker)
                worker = None
                if number in (signal.SIGPROF, signal.SIGALRM, signal.SIGKILL, signal.SIGXCPU):
                    raise TimedOut(f"no answer within {deadline:g} s of CPU time")
        finally:
            self._release(worker)
        if answer is None:
            raise Died("the worker process died twice on this answer")
        reply = json.loads(answer)
        if reply.get("unavailable"):
            raise GraderUnavailable(reply["error"])
        if "error" in reply:
            raise Failed(reply["error"])
        return reply["value"]

    def _acquire(self) -> socket.socket | None:
        """An idle worker, in the order of asking (a plain queue lets a busy thread overtake a waiting one)."""
        with self._turn:
            if self._idle:
                return self._idle.pop()
            place: queue.SimpleQueue[socket.socket | None] = queue.SimpleQueue()
            self._waiting.append(place)
        return place.get()

    def _release(self, worker: socket.socket | None) -> None:
        with self._turn:
            if self._waiting:
                self._waiting.popleft().put(worker)
            else:
                self._idle.append(worker)

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            if self._control is not None:
                self._control.close()
            if self._server is not None:
                try:
                    self._server.wait(5)
                except subprocess.TimeoutExpired:
                    self._server.kill()
                    self._server.wait()
            for channel in self._ids:
                channel.close()
            self._server = self._control = None
            self._ids.clear()

    def _spawn(self) -> socket.socket:
        with self._lock:
            last: OSError | None = None
            for _attempt in (1, 2):
                try:
                    control = self._start_server()
                    ours, theirs = socket.socketpair()
                    self._next += 1
                    with theirs:
                        message = json.dumps({"spawn": self._next}).encode() + b"\n"
                        socket.send_fds(control, [message], [theirs.fileno()])
                    _read_reply(control)
                    self._ids[ours] = self._next
                    return ours
                except OSError as error:
                    last = error
                    self._drop_server()
            raise GraderUnavailable(f"no worker process could be started: {last}")

    def _start_server(self) -> socket.socket:
        if self._control is not None and self._server is not None and self._server.poll() is None:
            return self._control
        self._drop_server()
        ours, theirs = socket.socketpair()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "reward_fns.workers.server"]
        with theirs:
            self._server = subprocess.Popen(
                [*command, str(theirs.fileno()), self._preload, str(self._memory_mb)],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True, env=environment,
            )  # fmt: skip
        self._control = ours
        return ours

    def _drop_server(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def _kill(self, worker: socket.socket) -> int:
        """Kill a worker; the signal that ended it (SIGKILL when it was ours), 0 when it exited by itself."""
        with self._lock:
            self.replaced += 1
            number = self._ids.pop(worker)
            worker.close()
            if self._control is None:
                return 0
            try:
                self._control.sendall(json.dumps({"kill": number}).encode() + b"\n")
                return int(_read_reply(self._control)["signal"])
            except OSError:
                self._drop_server()
                return 0


def _read_reply(control: socket.socket) -> dict[str, Any]:
    control.settimeout(120)  # the first reply waits for the server's imports
    buffer = b""
    while not buffer.endswith(b"\n"):
        data = control.recv(4096)
        if not data:
            raise ConnectionResetError("the fork server has gone")
        buffer += data
    return json.loads(buffer)


def _exchange(worker: socket.socket, line: bytes, timeout: float) -> bytes | None:
    """Send one request and read its answer; None when the worker died or stayed silent."""
    end = time.monotonic() + timeout
    buffer = bytearray()
    with contextlib.suppress(OSError):
        worker.settimeout(timeout)
        worker.sendall(line)
        while (left := end - time.monotonic()) > 0:
            worker.settimeout(left)
            data = worker.recv(1 << 16)
            if not data or len(buffer) > _MAX_ANSWER:
                break
            buffer += data
            if buffer.endswith(b"\n"):
                return bytes(buffer)
    return None


_pools: dict[tuple[int, str], WorkerPool] = {}
_pools_lock = threading.Lock()


def shared_pool(preload: str = "", memory_mb: int = 0) -> WorkerPool:
    """This process's pool for ``preload`` (a forked child gets its own)."""
    with _pools_lock:
        key = (os.getpid(), preload)
        if key not in _pools:
            _pools[key] = WorkerPool(preload, memory_mb=memory_mb)
        return _pools[key]


def call_in_worker(target: str, args: list[Any], kwargs: dict[str, Any], *, deadline: float) -> Any:
    """Run a user's grader in a killable process; importing its module does not count towards ``deadline``."""
    return shared_pool(target.partition(":")[0]).call(target, args, kwargs, deadline=deadline)
