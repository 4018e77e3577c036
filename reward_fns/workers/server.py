"""The fork server and the children it forks. Run as ``python -m reward_fns.workers.server FD PRELOAD MEMORY_MB``.

Commands arrive on the Unix socket ``FD``, one JSON line each, answered by one JSON line:
``{"spawn": id}`` with a socket attached forks a child that serves requests on that socket; ``{"kill": id}`` kills it
and returns the signal that ended it. The server itself never touches a completion. It ends, with all its children,
when the socket closes, hence when its owner dies.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import socket
import sys
from typing import Any

from reward_fns.result import plain


def serve(control: socket.socket, memory_mb: int) -> None:
    """Answer the owner's commands until it goes away."""
    children: dict[int, int] = {}
    buffer = b""
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 4096, 1)
        if not data:
            break
        buffer += data
        line, _, buffer = buffer.partition(b"\n")
        command = json.loads(line)
        if "spawn" in command:
            pid = os.fork()
            if pid == 0:
                control.close()
                work(socket.socket(fileno=descriptors[0]), memory_mb)
            os.close(descriptors[0])
            children[command["spawn"]] = pid
            control.sendall(b'{"ok": true}\n')
        else:
            status = _kill(children.pop(command["kill"]))
            control.sendall(json.dumps({"signal": status}).encode() + b"\n")
    for pid in children.values():
        _kill(pid)


def _kill(pid: int) -> int:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def work(channel: socket.socket, memory_mb: int) -> None:
    """Serve requests ``{"target", "args", "kwargs", "deadline", "wall"}`` on ``channel``; never returns.

    The deadline is set with interval timers whose signals keep their default action, so the kernel ends the process
    even when it is inside one long C call or its owner is gone.
    """
    if memory_mb:
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    stream = channel.makefile("rb")
    for line in stream:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, float(request["deadline"]))
        signal.setitimer(signal.ITIMER_REAL, float(request["wall"]))
        answer = _answer(request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        channel.sendall(answer + b"\n")
    os._exit(0)


def _answer(request: dict[str, Any]) -> bytes:
    try:
        module, _, name = request["target"].partition(":")
        function: Any = importlib.import_module(module)
        for part in name.split("."):
            function = getattr(function, part)
        return json.dumps({"value": function(*request["args"], **request["kwargs"])}, default=plain).encode()
    except BaseException as error:  # noqa: BLE001 - every outcome is an answer; the owner decides what it means
        unavailable = any(base.__name__ == "GraderUnavailable" for base in type(error).__mro__)
        return json.dumps({"error": f"{type(error).__name__}: {error}"[:500], "unavailable": unavailable}).encode()


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    sink = os.open(os.devnull, os.O_RDWR)
    os.dup2(sink, 0)
    os.dup2(2, 1)  # whatever a grader prints goes to the log
    for module in filter(None, sys.argv[2].split(",")):
        importlib.import_module(module)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(control, int(sys.argv[3]))


if __name__ == "__main__":
    main()
