"""The program that runs inside the sandbox. Its source, after that of codec.py, is passed to a bare interpreter.

It is started ahead of time, imports what programs commonly need, and then forks one child per execution. Untrusted
code runs only in these children. The parent outside trusts nothing that comes back: it holds the expected outputs,
this process never sees them.

Frames on stdin and stdout: four bytes of length, then JSON. Commands: ``start`` (fork a child for a program), ``call``
(pass a call on to it), ``stop``. Events: ``reply`` (what a call gave), ``exit`` (how the child ended, and its output).
"""

import _sitebuiltins
import atexit
import base64
import bisect
import builtins
import collections
import contextlib
import copy
import datetime
import fractions
import functools
import gc
import heapq
import io
import itertools
import json
import linecache
import math
import operator
import os
import random
import re
import resource
import select
import shutil
import signal
import statistics
import string
import struct
import sys
import threading
import time
import traceback
import types
import typing

if typing.TYPE_CHECKING:
    from reward_fns.sandbox.codec import decode, encode

# Warm for the children: what programs commonly import.
_KEEP = (bisect, collections, copy, datetime, fractions, functools, heapq, io, itertools, math, operator, random, re,
         statistics, string)  # fmt: skip
_FILE = (lambda: None).__code__.co_filename
_FUTURE = 0x1000000  # the flag of `from __future__ import annotations`
_dumps, _loads, _pack, _unpack = json.dumps, json.loads, struct.pack, struct.unpack


# ---- frames -------------------------------------------------------------------------------------------------------
def write_frame(fd, message, _write=os.write):
    data = _dumps(message).encode()
    view = memoryview(_pack(">I", len(data)) + data)
    while view:
        view = view[_write(fd, view) :]


def read_exactly(fd, size, _read=os.read):
    parts = []
    while size:
        data = _read(fd, min(size, 1 << 16))
        if not data:
            return None
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def read_frame(fd):
    head = read_exactly(fd, 4)
    body = read_exactly(fd, _unpack(">I", head)[0]) if head else None
    return _loads(body) if body is not None else None


# ---- the child ----------------------------------------------------------------------------------------------------
def limit(limits):
    cpu = math.ceil(limits["cpu_seconds"])
    pairs = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, limits["file_mb"] << 20),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
        (resource.RLIMIT_AS, limits["memory_mb"] << 20),
    ]
    if limits["processes"]:
        pairs.append((resource.RLIMIT_NPROC, limits["processes"]))
    for which, value in pairs:
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    stack = 120 << 20 if hard == resource.RLIM_INFINITY else min(120 << 20, hard)
    resource.setrlimit(resource.RLIMIT_STACK, (stack, hard))
    try:
        with open("/proc/self/oom_score_adj", "w") as handle:
            handle.write("1000")
    except OSError:
        pass  # not every sandbox shows /proc; the memory limit above stands


def load(program, name, prelude=""):
    """Run a program as a module, after a prelude (what its data set lets it rely on) in the same namespace."""
    module = types.ModuleType(name)
    module.__dict__["__file__"] = "solution.py"
    sys.modules[name] = module
    flags = 0
    if prelude:
        code = compile(prelude, "prelude.py", "exec")
        flags = code.co_flags & _FUTURE
        exec(code, module.__dict__)
    linecache.cache["solution.py"] = (len(program), None, program.splitlines(True), "solution.py")
    exec(compile(program, "solution.py", "exec", flags), module.__dict__)
    return module.__dict__


def find_entry(space, name):
    if name in space:
        return space[name]
    solution = space.get("Solution")
    if solution is not None and hasattr(solution, name):
        return getattr(solution(), name)
    raise NameError(f"name {name!r} is not defined")


def serve_calls(command, requests, replies):
    """Answer ``{"name", "args", "kwargs"}`` with the value of that call; runs in the untrusted child."""
    space = load(command["program"], "solution", command.get("prelude", ""))
    while True:
        request = read_frame(requests)
        if request is None:
            os._exit(0)
        function = find_entry(space, request["name"])
        args = [decode(item) for item in request["args"]]
        kwargs = {key: decode(item) for key, item in request["kwargs"].items()}
        before = _dumps([encode(item) for item in args])
        value = function(*args, **kwargs)
        after = [encode(item) for item in args]
        reply = {"value": encode(value)}
        if _dumps(after) != before:
            reply["args"] = after
        write_frame(replies, reply)


def run_tests(command, requests, replies):
    """Run trusted test code whose function under test lives in another sandbox; runs in the tests' own child."""

    def proxy(name):
        def call(*args, **kwargs):
            request = {"name": name, "args": [encode(item) for item in args]}
            request["kwargs"] = {key: encode(item) for key, item in kwargs.items()}
            write_frame(replies, {"call": request})
            reply = read_frame(requests)
            if reply is None or "value" not in reply:
                os._exit(3)  # the answer's process failed; the owner knows how
            for argument, changed in zip(args, reply.get("args", ())):  # noqa: B905 - before Python 3.10
                copy_into(argument, decode(changed))
            return decode(reply["value"])

        call.__name__ = name
        return call

    space = {"__name__": "tests"}
    try:
        exec(compile(command["setup"], "setup.py", "exec"), space)
        space.update({name: proxy(name) for name in command["names"]})
        linecache.cache["tests.py"] = (1, None, command["program"].splitlines(True), "tests.py")
        exec(compile(command["program"], "tests.py", "exec"), space)
        write_frame(replies, {"passed": True})
    except AssertionError as error:
        line = error.__traceback__
        numbers = []
        while line is not None:
            if line.tb_frame.f_code.co_filename == "tests.py":
                numbers.append(line.tb_lineno)
            line = line.tb_next
        source = linecache.getline("tests.py", numbers[-1]).strip() if numbers else ""
        write_frame(replies, {"failed": source[:1000]})
    except BaseException as error:  # noqa: BLE001 - reported, and judged by the owner
        write_frame(replies, {"broken": f"{type(error).__name__}: {error}"[:500]})
    os._exit(0)


def copy_into(target, changed):
    """Give a caller's list, dict or set the contents that the function under test left in it."""
    if isinstance(target, list) and isinstance(changed, list):
        target[:] = changed
    elif isinstance(target, (dict, set)) and isinstance(changed, type(target)):
        target.clear()
        target.update(changed)


def child(command, fds, confine):
    """Everything between fork and the end of one execution; never returns."""
    gc.enable()
    stdin, stdout, stderr, requests, replies = fds
    os.setsid()
    for number in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    os.dup2(stdin, 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.dup2(requests, 3)
    os.dup2(replies, 4)
    os.closerange(5, 256)
    os.chdir(command["cwd"])
    os.environ.clear()
    os.environ.update({"PATH": "/usr/bin:/bin", "HOME": command["cwd"], "TMPDIR": command["cwd"], "LANG": "C.UTF-8"})
    sys.argv[:] = ["solution.py"]
    sys.setrecursionlimit(1000)
    for name in ("exit", "quit"):  # the site module, which is not loaded here, gives them to a script
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D"))
    limit(command["limits"])
    if confine is not None:
        confine(command["cwd"])
    kind = command["kind"]
    code = 0
    try:
        if kind == "stdin":
            os.close(3)
            os.close(4)
            load(command["program"], "__main__", command.get("prelude", ""))
        elif kind == "calls":
            serve_calls(command, 3, 4)
        else:
            run_tests(command, 3, 4)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            code = (error.code or 0) & 0xFF
        else:
            print(error.code, file=sys.stderr)
            code = 1
    except BaseException as error:  # noqa: BLE001 - what the interpreter would do: print it and exit with 1
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == _FILE:
            trace = trace.tb_next
        traceback.print_exception(type(error), error, trace)
        code = 1
    leave(code)


def leave(code):
    """End as the interpreter would (threads joined, exit functions run, output flushed), without its slow teardown."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - such as a closed or replaced stdout: the interpreter exits with 120
        code = code or 120
    os._exit(code)


# ---- the supervisor -----------------------------------------------------------------------------------------------
def memory_file(data):
    fd = os.memfd_create("stdin")
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def descendants():
    """All processes below this one; it is a subreaper, so that orphans are among them."""
    found, queue = [], [os.getpid()]
    while queue:
        pid = queue.pop()
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children") as handle:
                    children = [int(word) for word in handle.read().split()]
                queue += children
                found += children
        except OSError:
            continue  # it has just ended
    return found


def send_to(pids, number):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def sweep(scope):
    """Kill and reap every other process of this sandbox.

    ``all``: whatever this user may signal, atomically (it is alone with its user id or its namespace). ``children``:
    our descendants, stopped first, so that a fork bomb cannot outrun the killing.
    """
    end = time.monotonic() + 20
    stopped: typing.Set[int] = set()  # noqa: UP006 - before Python 3.9
    while time.monotonic() < end:
        if scope == "all":
            send_to([-1], signal.SIGKILL)
        else:
            fresh = set(descendants()) - stopped
            while fresh and time.monotonic() < end:
                send_to(fresh, signal.SIGSTOP)
                stopped |= fresh
                fresh = set(descendants()) - stopped
            send_to(descendants(), signal.SIGKILL)
            stopped.clear()
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return  # orphans come to us or to the namespace's first process
        time.sleep(0.001)


def execute(command, control, events, base, scope, confine):
    """Run one ``start`` command to its end and report it."""
    command["cwd"] = cwd = os.path.join(base, "run")
    shutil.rmtree(cwd, ignore_errors=True)
    os.makedirs(cwd, exist_ok=True)
    stdin = memory_file(base64.b64decode(command.pop("stdin", "")))
    out_r, out_w = os.pipe()
    err_r, err_w = os.pipe()
    requests_r, requests_w = os.pipe()
    replies_r, replies_w = os.pipe()
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        return True, (command, (stdin, out_w, err_w, requests_r, replies_w), confine)
    for fd in (stdin, out_w, err_w, requests_r, replies_w):
        os.close(fd)
    watch = os.pidfd_open(pid)
    cap = command["limits"]["output_bytes"]
    buffers = {out_r: bytearray(), err_r: bytearray(), replies_r: bytearray()}
    deadline = start + command["limits"]["wall_seconds"]
    poll = select.poll()
    for fd in (*buffers, watch, control):
        poll.register(fd, select.POLLIN)
    reason, open_fds = "", set(buffers)

    def drain(fd, once):
        while True:
            try:
                data = os.read(fd, 1 << 16)
            except BlockingIOError:
                return
            if not data:
                open_fds.discard(fd)
                poll.unregister(fd)
                return
            buffers[fd] += data
            if once or len(buffers[fd]) > cap:
                return

    for fd in buffers:
        os.set_blocking(fd, False)
    ended = False
    while not ended and not reason:
        left = deadline - time.monotonic()
        if left <= 0:
            reason = "wall"
            break
        for fd, _ in poll.poll(left * 1000 + 1):
            if fd == watch:
                ended = True
            elif fd == control:
                message = read_frame(control)
                if message is None:
                    sweep(scope)
                    os._exit(0)
                if "call" in message:
                    try:
                        write_frame(requests_w, message["call"])
                    except OSError:
                        continue  # the child has gone; its exit is reported below
                else:
                    reason = "stopped"
            elif fd in open_fds:
                drain(fd, True)
                if len(buffers[fd]) > cap:
                    if fd == err_r:
                        del buffers[fd][: len(buffers[fd]) - 20000]  # the end of a traceback is what matters
                    else:
                        reason = "output"
        for body in take_frames(buffers[replies_r]):
            write_frame(events, {"reply": base64.b64encode(body).decode()})
    if ended:
        for fd in list(open_fds):
            drain(fd, False)
        for body in take_frames(buffers[replies_r]):
            write_frame(events, {"reply": base64.b64encode(body).decode()})
    else:
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    sweep(scope)
    for fd in (out_r, err_r, replies_r, requests_w, watch):
        os.close(fd)
    shutil.rmtree(cwd, ignore_errors=True)
    write_frame(
        events,
        {
            "exit": os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status),
            "reason": reason,
            "stdout": base64.b64encode(bytes(buffers[out_r][:cap])).decode(),
            "stderr": base64.b64encode(bytes(buffers[err_r][-20000:])).decode(),
            "seconds": time.monotonic() - start,
            "cpu": usage.ru_utime + usage.ru_stime,
        },
    )
    return False, None


def take_frames(buffer):
    while len(buffer) >= 4:
        size = _unpack(">I", bytes(buffer[:4]))[0]
        if len(buffer) < 4 + size:
            return
        yield bytes(buffer[4 : 4 + size])
        del buffer[: 4 + size]


def main(base, scope, confine=None):
    """Serve commands until the owner closes the pipe; in a forked child, run the program."""
    control, events = os.dup(0), os.dup(1)
    sink = os.open(os.devnull, os.O_RDWR)
    os.dup2(sink, 0)
    os.dup2(2, 1)
    gc.disable()
    gc.freeze()
    write_frame(events, {"ready": os.getpid()})
    while True:
        command = read_frame(control)
        if command is None:
            sweep(scope)
            os._exit(0)
        if "start" not in command:
            continue
        in_child, work = execute(command["start"], control, events, base, scope, confine)
        if in_child:
            break
    child(*work)
