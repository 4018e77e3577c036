"""One sandbox process on this machine: start it, exchange frames with it under a deadline, destroy it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from typing import Any

from reward_fns.sandbox.config import SandboxConfig
from reward_fns.sandbox.launch import FIRST_UID, Launch, bwrap_command, plain_command
from reward_fns.sandbox.leases import Lease
from reward_fns.strictjson import JSONProblem, loads

START_SECONDS = 30.0
_PUBLIC_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


class SandboxGone(RuntimeError):
    """The process ended, stopped answering, or sent what is no frame."""


class SandboxProcess:
    """A started sandbox. Call :meth:`wait_ready` before the first frame and :meth:`destroy` at the end.

    It must be started by a thread that outlives it: bubblewrap ends its processes with the thread that started them.
    """

    def __init__(self, launch: Launch, config: SandboxConfig, lease: Lease | None, stderr: int = subprocess.DEVNULL):
        self._launch, self._lease = launch, lease
        self._uid = FIRST_UID + lease.number if lease else None
        self._base = ""
        self._inner: int | None = None  # a pidfd of the namespace's first process
        self._info = -1
        self._buffer = bytearray()
        # Without namespaces and without a user id of its own, only the runner itself can find what it has started.
        self._sweep_seconds = 3 if launch.namespaces else 25
        self._max_frame = 0
        self.allow_output(config.output_bytes)
        pass_fds: tuple[int, ...]
        user: dict[str, Any] = {"user": self._uid, "group": self._uid, "extra_groups": []} if lease else {}
        if launch.namespaces:
            self._info, info_w = os.pipe()
            command, pass_fds = bwrap_command(launch, config, info_w), (info_w,)
        else:
            info_w, pass_fds = -1, ()
            self._base = tempfile.mkdtemp(prefix="srpo_verl_run_")
            if self._uid is not None:
                os.chown(self._base, self._uid, self._uid)
            command = plain_command(launch, config, self._base)
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, pass_fds=pass_fds, cwd="/",
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}, start_new_session=True, bufsize=0, **user,
            )  # fmt: skip
        except BaseException:
            self._remove_files()
            if self._info >= 0:
                os.close(self._info)
            raise
        finally:
            if info_w >= 0:
                os.close(info_w)
        self._in, self._out = self.process.stdin.fileno(), self.process.stdout.fileno()  # type: ignore[union-attr]
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)

    def allow_output(self, size: int) -> None:
        """Accept frames for executions that may write ``size`` bytes."""
        self._max_frame = max(self._max_frame, 4 * size + (1 << 20))

    def wait_ready(self) -> None:
        """Wait until the interpreter inside has started."""
        frame = self.receive(time.monotonic() + START_SECONDS)
        if "ready" not in frame:
            raise SandboxGone("the sandbox did not start properly")
        if self._info >= 0:
            data = os.read(self._info, 4096)
            with contextlib.suppress(JSONProblem, KeyError, OSError):
                self._inner = os.pidfd_open(int(loads(data.decode())["child-pid"]))

    def send(self, message: dict[str, Any], deadline: float) -> None:
        """Send one frame."""
        data = json.dumps(message).encode()
        view = memoryview(struct.pack(">I", len(data)) + data)
        poll = select.poll()
        poll.register(self._in, select.POLLOUT)
        while view:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise SandboxGone("the sandbox does not read its commands")
            try:
                view = view[os.write(self._in, view[: 1 << 16]) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise SandboxGone(f"the sandbox has ended: {error}") from None

    def receive(self, deadline: float) -> dict[str, Any]:
        """The next frame; strict about its form, since a program may have taken the sender over."""
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        while True:
            frame = self._take()
            if frame is not None:
                return frame
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000 + 1):
                raise SandboxGone("the sandbox does not answer")
            try:
                data = os.read(self._out, 1 << 18)
            except BlockingIOError:
                continue
            if not data:
                raise SandboxGone("the sandbox has ended")
            self._buffer += data

    def _take(self) -> dict[str, Any] | None:
        if len(self._buffer) < 4:
            return None
        size = struct.unpack(">I", self._buffer[:4])[0]
        if size > self._max_frame:
            raise SandboxGone("the sandbox sent an oversized frame")
        if len(self._buffer) < 4 + size:
            return None
        body = bytes(self._buffer[4 : 4 + size])
        del self._buffer[: 4 + size]
        try:
            frame = loads(body.decode(), max_chars=self._max_frame)
        except (JSONProblem, UnicodeDecodeError) as error:
            raise SandboxGone(f"the sandbox sent what is no frame: {error}") from None
        if not isinstance(frame, dict):
            raise SandboxGone("the sandbox sent what is no frame")
        return frame

    def destroy(self) -> None:
        """Kill everything inside, reap, remove what it left, give the user id back."""
        if self._inner is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._inner, signal.SIGKILL)
            os.close(self._inner)
            self._inner = None
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        if self._info >= 0:
            os.close(self._info)
            self._info = -1
        try:
            self.process.wait(0 if self._uid is not None and not self._launch.namespaces else self._sweep_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
        if self._uid is not None and not self._launch.namespaces:
            kill_user(self._uid)
        self.process.wait()
        self._remove_files()
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def _remove_files(self) -> None:
        if self._base:
            shutil.rmtree(self._base, ignore_errors=True)
        if self._uid is not None and not self._launch.namespaces:
            remove_files_of(self._uid)


def kill_user(uid: int) -> None:
    """Kill every process of a user id that only sandboxes use."""
    if uid < FIRST_UID:
        raise ValueError(f"refusing to kill the processes of user {uid}")
    command = ["/bin/sh", "-c", "kill -9 -1"]
    subprocess.run(
        command, user=uid, group=uid, extra_groups=[], check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def remove_files_of(uid: int) -> None:
    """Remove what a sandbox's user left in the world-writable directories."""
    for folder in _PUBLIC_FOLDERS:
        try:
            entries = list(os.scandir(folder))
        except OSError:
            continue
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_uid != uid:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)
