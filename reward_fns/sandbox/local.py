"""The local backend: a warm pool of sandbox processes, one per completion, destroyed after it.

Inside a sandbox every test runs in a fresh fork of a clean interpreter. A sandbox that was given a completion is never
given another one.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import functools
import logging
import os
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

from reward_fns.result import BadSettings, GraderUnavailable
from reward_fns.sandbox.base import NAMESPACES, PLAIN, Outcome, Program
from reward_fns.sandbox.config import SandboxConfig
from reward_fns.sandbox.launch import UIDS, Launch, can_use_own_uid, find_python
from reward_fns.sandbox.leases import Lease, Leases
from reward_fns.sandbox.process import SandboxGone, SandboxProcess

logger = logging.getLogger(__name__)
_GRACE = 2.0
_QUEUE_SECONDS = 900.0


class LocalBackend:
    """Sandboxes on this machine, under bubblewrap where it works."""

    def __init__(self, config: SandboxConfig):
        self.config = config
        self.launch = choose_launch(config)
        self.isolation = NAMESPACES if self.launch.namespaces else PLAIN
        cores = len(os.sched_getaffinity(0))
        self._slots = Leases("slots", config.concurrency or cores)
        self._uids = Leases("uids", UIDS) if self.launch.own_uid else None
        self._ready: queue.Queue[SandboxProcess | Exception] = queue.Queue()
        self._tasks: queue.Queue[SandboxProcess | None] = queue.Queue()
        self._closing, self._owner = False, os.getpid()
        self._thread = threading.Thread(target=self._work, name="sandbox-pool", daemon=True)
        self._thread.start()
        for _ in range(min(4, self._slots.size)):
            self._tasks.put(None)
        atexit.register(self.close)

    @contextlib.contextmanager
    def sample(self) -> Iterator[LocalSample]:
        """A place to run one completion's tests; waits for a free run slot of this machine."""
        try:
            slot = self._slots.acquire(_QUEUE_SECONDS)
        except TimeoutError as error:
            raise GraderUnavailable(str(error)) from None
        sample = LocalSample(self)
        try:
            yield sample
        finally:
            sample.close()
            slot.release()

    def take(self) -> SandboxProcess:
        """A started sandbox; another one is started in its place."""
        last: Exception | None = None
        for _attempt in range(3):
            self._tasks.put(None)
            try:
                item = self._ready.get(timeout=60)
            except queue.Empty:
                break
            if isinstance(item, Exception):
                last = item
                continue
            try:
                item.wait_ready()
            except SandboxGone as error:
                last = error
                self._tasks.put(item)
                continue
            return item
        raise GraderUnavailable(f"no sandbox could be started: {last}")

    def give_back(self, sandbox: SandboxProcess) -> None:
        """Have a used sandbox destroyed."""
        self._tasks.put(sandbox)

    def close(self) -> None:
        """Destroy all sandboxes, before the process ends."""
        if os.getpid() == self._owner:
            self._closing = True
            self._tasks.put(None)
            self._thread.join(60)

    def _work(self) -> None:
        """Start (``None``) and destroy sandboxes; this thread lives as long as the process."""
        while not self._closing:
            self._step(self._tasks.get())
        with contextlib.suppress(queue.Empty):
            while True:
                self._step(self._tasks.get_nowait())
        with contextlib.suppress(queue.Empty):
            while True:
                item = self._ready.get_nowait()
                if isinstance(item, SandboxProcess):
                    item.destroy()

    def _step(self, task: SandboxProcess | None) -> None:
        try:
            if task is not None:
                task.destroy()
            elif not self._closing:
                self._ready.put(self._start())
        except Exception as error:  # noqa: BLE001 - handed to whoever waits for a sandbox
            logger.error("sandbox pool: %s", error)
            if task is None:
                self._ready.put(error)

    def _start(self) -> SandboxProcess:
        lease: Lease | None = self._uids.acquire(30) if self._uids else None
        try:
            return SandboxProcess(self.launch, self.config, lease)
        except BaseException:
            if lease is not None:
                lease.release()
            raise


class LocalSample:
    """The sandbox of one completion. Broken sandboxes are replaced within it."""

    def __init__(self, backend: LocalBackend):
        self._backend = backend
        self._sandbox: SandboxProcess | None = None
        self._tests: SandboxProcess | None = None

    def run_stdin(
        self, program: Program, stdin: str, cpu_seconds: float | None = None, output_bytes: int | None = None
    ) -> Outcome:
        """Run a program with ``stdin`` until it ends or hits a limit; a sandbox it broke is replaced once."""
        command = {"kind": "stdin", "program": program.code, "prelude": program.prelude}
        command["stdin"] = base64.b64encode(stdin.encode("utf-8", "surrogatepass")).decode()
        outcome = LocalCalls(self, self._of_answer(), command, cpu_seconds, output_bytes).finish(stop=False)
        if outcome.reason == "broken":
            outcome = LocalCalls(self, self._of_answer(), command, cpu_seconds, output_bytes).finish(stop=False)
        return outcome

    def open_calls(self, program: Program, cpu_seconds: float | None = None) -> LocalCalls:
        """Load a program in a fresh process that answers calls."""
        command = {"kind": "calls", "program": program.code, "prelude": program.prelude}
        return LocalCalls(self, self._of_answer(), command, cpu_seconds)

    def open_tests(self, setup: str, tests: str, names: list[str], cpu_seconds: float | None = None) -> LocalCalls:
        """Start trusted test code in a sandbox of its own; its frames ask for calls of ``names``."""
        if self._tests is None:
            self._tests = self._backend.take()
        command = {"kind": "tests", "setup": setup, "program": tests, "names": names}
        return LocalCalls(self, self._tests, command, cpu_seconds)

    def discard(self, sandbox: SandboxProcess) -> None:
        """Destroy a broken sandbox."""
        if self._sandbox is sandbox:
            self._sandbox = None
        if self._tests is sandbox:
            self._tests = None
        self._backend.give_back(sandbox)

    def close(self) -> None:
        for sandbox in (self._sandbox, self._tests):
            if sandbox is not None:
                self._backend.give_back(sandbox)
        self._sandbox = self._tests = None

    def limits(self, cpu_seconds: float | None) -> dict[str, Any]:
        limits = self._backend.config.limits(cpu_seconds)
        if not self._backend.launch.own_uid and (not self._backend.launch.namespaces or not counts_per_namespace()):
            limits["processes"] += tasks_of(os.getuid())  # the kernel counts all of this user's
        return limits

    def _of_answer(self) -> SandboxProcess:
        if self._sandbox is None:
            self._sandbox = self._backend.take()
        return self._sandbox


class LocalCalls:
    """One execution in a sandbox process."""

    def __init__(
        self,
        sample: LocalSample,
        sandbox: SandboxProcess,
        command: dict[str, Any],
        cpu_seconds: float | None,
        output_bytes: int | None = None,
    ):
        limits = sample.limits(cpu_seconds)
        limits["output_bytes"] = output_bytes or limits["output_bytes"]
        sandbox.allow_output(limits["output_bytes"])
        self._sample, self._sandbox = sample, sandbox
        self._deadline = time.monotonic() + limits["wall_seconds"] + _GRACE
        self._outcome: Outcome | None = None
        self.replies: list[bytes] = []
        self._try(lambda: sandbox.send({"start": {**command, "limits": limits}}, self._deadline))

    def call(self, request: dict[str, Any]) -> bytes | None:
        """Send a call and wait for its reply."""
        self.send(request)
        return self.next_reply()

    def send(self, request: dict[str, Any]) -> None:
        if self._outcome is None:
            self._try(lambda: self._sandbox.send({"call": request}, self._deadline))

    def next_reply(self) -> bytes | None:
        """The next reply of the program; None when it has ended."""
        while self._outcome is None:
            frame = self._try(lambda: self._sandbox.receive(self._deadline))
            if frame is not None and "reply" in frame:
                reply = _bytes(frame["reply"])
                self.replies.append(reply)
                return reply
            if frame is not None:
                self._end(frame)
        return None

    def finish(self, stop: bool = True) -> Outcome:
        """Wait for the end (or bring it about) and say how it was."""
        if stop and self._outcome is None:
            self._try(lambda: self._sandbox.send({"stop": True}, self._deadline))
        while self.next_reply() is not None:
            continue
        assert self._outcome is not None
        return self._outcome

    def _end(self, frame: dict[str, Any]) -> None:
        try:
            self._outcome = Outcome(
                exit=int(frame["exit"]),
                reason=str(frame["reason"]),
                stdout=_bytes(frame["stdout"]),
                stderr=_bytes(frame["stderr"]),
                seconds=float(frame["seconds"]),
                cpu=float(frame["cpu"]),
                replies=self.replies,
            )
        except (KeyError, TypeError, ValueError):
            self._break()

    def _try(self, action: Any) -> Any:
        try:
            return action()
        except SandboxGone:
            self._break()
            return None

    def _break(self) -> None:
        late = time.monotonic() >= self._deadline
        self._outcome = Outcome(reason="wall" if late else "broken", exit=-9, replies=self.replies)
        self._sample.discard(self._sandbox)


def _bytes(text: Any) -> bytes:
    return base64.b64decode(text, validate=True) if isinstance(text, str) else b""


@functools.cache
def counts_per_namespace() -> bool:
    """Whether the kernel counts processes per user namespace (Linux 5.14)."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int("".join(filter(str.isdigit, minor)) or 0)) >= (5, 14)


def tasks_of(uid: int) -> int:
    """The number of processes and threads a user has."""
    count = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == uid:
                    count += len(os.listdir(f"/proc/{entry.name}/task"))
    return count


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning(message)


def choose_launch(config: SandboxConfig) -> Launch:
    """The best way to start sandboxes that works here, said once in the log."""
    own_uid = can_use_own_uid()
    python = find_python(config, own_uid)
    wanted = config.wanted_isolation
    problem = ""
    if wanted != "plain":
        launch = Launch(True, own_uid, python)
        problem = probe(launch, config)
        if not problem:
            _say_once(launch.describe())
            return launch
        if wanted == "namespaces":
            raise BadSettings(
                f"sandbox.isolation='namespaces', but bubblewrap does not work here: {problem}. Install it (apt-get "
                "install bubblewrap), allow user namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns=0 on "
                "Ubuntu 24.04; docker run --security-opt seccomp=unconfined), or use SandboxFusion"
            )
    launch = Launch(False, own_uid, python)
    failed = probe(launch, config)
    if failed:
        raise BadSettings(f"no sandbox can be started here: {failed}")
    _warn_once(
        f"code runs WITHOUT namespaces ({problem or 'as asked'}): {launch.describe()}. Use bubblewrap or SandboxFusion "
        "for code you do not trust"
    )
    return launch


@functools.cache
def _say_once(message: str) -> None:
    logger.info("code sandbox: %s", message)


def probe(launch: Launch, config: SandboxConfig) -> str:
    """Start one sandbox; "" when it works, else what went wrong."""
    import subprocess

    lease = None
    try:
        lease = Leases("uids", UIDS).acquire(30) if launch.own_uid else None
        sandbox = SandboxProcess(launch, config, lease, stderr=subprocess.PIPE)
    except (OSError, TimeoutError) as error:
        if lease is not None:
            lease.release()
        return str(error)
    try:
        sandbox.wait_ready()
    except SandboxGone as error:
        sandbox.process.kill()
        message = sandbox.process.stderr.read(2000).decode(errors="replace").strip()  # type: ignore[union-attr]
        return message or str(error)
    finally:
        sandbox.destroy()
    return ""
