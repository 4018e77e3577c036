"""The SandboxFusion backend: programs run on a server, one HTTP request per execution.

The server sees programs and inputs, never an expected output. A request that fails is retried with growing pauses; when
that does not help the verdict is :class:`GraderUnavailable`, not "wrong". Assert-style tests call the answer once per
request (so it keeps no state between calls, and changes to arguments are not seen); the tests run in a local sandbox.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from reward_fns.result import GraderUnavailable
from reward_fns.sandbox.base import REMOTE, Backend, Calls, Outcome, Program
from reward_fns.sandbox.config import SandboxConfig
from reward_fns.sandbox.launch import source_of

RETRIES = 4
PAUSE = 0.5
MARK = "\n#reply "

#: What the server runs: the codec and the answer in modules of their own, so that neither sees the other's names; for a
#: call, the tagged value goes to the last line of the output.
_HARNESS = """
import base64 as _b, json as _j, sys as _s, types as _t
def _load(name, *texts):
    module = _s.modules[name] = _t.ModuleType(name)
    for text in texts:
        exec(compile(_b.b64decode(text).decode("utf-8", "surrogatepass"), "solution.py", "exec"), module.__dict__)
    return module
_codec = _load("_codec", {codec!r})
_program = _load({name!r}, {prelude!r}, {program!r})
"""
_CALL = """
_r = _j.loads(_b.b64decode({request!r}))
_f = getattr(_program, _r["name"], None) or getattr(_program.Solution(), _r["name"])
_a = [_codec.decode(_x) for _x in _r["args"]]
_v = _f(*_a, **{{_k: _codec.decode(_x) for _k, _x in _r["kwargs"].items()}})
_s.stdout.write({mark!r} + _j.dumps({{"value": _codec.encode(_v)}}) + "\\n")
"""


def harness(program: Program, request: dict[str, Any] | None = None) -> str:
    """The text of one execution: the answer as a program, or one call of a function in it."""
    texts = {"codec": source_of("codec.py"), "prelude": program.prelude, "program": program.code}
    packed = {key: base64.b64encode(text.encode("utf-8", "surrogatepass")).decode() for key, text in texts.items()}
    code = _HARNESS.format(name="__main__" if request is None else "solution", **packed)
    if request is not None:
        code += _CALL.format(request=base64.b64encode(json.dumps(request).encode()).decode(), mark=MARK)
    return code


class FusionBackend:
    """A SandboxFusion server at ``config.url`` (its ``/run_code`` address)."""

    isolation = REMOTE

    def __init__(self, config: SandboxConfig, local_tests: Callable[[], Backend]):
        self.config, self.local_tests = config, local_tests
        self._slots = threading.BoundedSemaphore(config.concurrency or 64)

    @contextlib.contextmanager
    def sample(self) -> Iterator[FusionSample]:
        sample = FusionSample(self)
        try:
            yield sample
        finally:
            sample.close()

    def run(self, code: str, stdin: str, cpu_seconds: float | None, output_bytes: int | None = None) -> Outcome:
        """One execution on the server."""
        cap = output_bytes or self.config.output_bytes
        limits = self.config.limits(cpu_seconds)
        body = json.dumps({
            "code": code, "stdin": stdin, "language": "python", "run_timeout": limits["cpu_seconds"],
            "compile_timeout": limits["cpu_seconds"], "memory_limit_MB": self.config.memory_mb, "files": {},
            "fetch_files": [],
        }).encode("ascii")  # fmt: skip
        with self._slots:
            return self._outcome(self._post(body, limits["wall_seconds"] + 20, cap), cap)

    def _post(self, body: bytes, timeout: float, cap: int) -> dict[str, Any]:
        request = urllib.request.Request(self.config.url, body, {"Content-Type": "application/json"})
        problem = ""
        for attempt in range(RETRIES):
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                with urllib.request.urlopen(request, timeout=timeout) as response:
                    data = response.read(8 * cap + (1 << 20))
                reply = json.loads(data)
                if isinstance(reply, dict):
                    return reply
                problem = "the answer is not a JSON object"
            except urllib.error.HTTPError as error:
                problem = f"HTTP {error.code}"
                if error.code < 500 and error.code != 429:
                    break
            except (OSError, ValueError) as error:
                problem = f"{type(error).__name__}: {error}"
        raise GraderUnavailable(f"SandboxFusion at {self.config.url}: {problem}")

    def _outcome(self, reply: dict[str, Any], cap: int) -> Outcome:
        status, run = reply.get("status"), reply.get("run_result") or {}
        if status == "SandboxError" or status not in ("Success", "Failed") or not isinstance(run, dict):
            raise GraderUnavailable(f"SandboxFusion at {self.config.url}: {status} {reply.get('message')}")
        late = run.get("status") == "TimeLimitExceeded"
        stdout = str(run.get("stdout") or "").encode("utf-8", "surrogatepass")
        code = run.get("return_code")
        return Outcome(
            exit=int(code) if code is not None else (0 if status == "Success" else 1),
            reason="wall" if late else "output" if len(stdout) > cap else "",
            stdout=stdout[:cap],
            stderr=str(run.get("stderr") or "").encode("utf-8", "surrogatepass"),
            seconds=float(run.get("execution_time") or 0),
        )


class FusionSample:
    """One completion's executions; each stands alone on the server."""

    def __init__(self, backend: FusionBackend):
        self._backend = backend
        self._local = contextlib.ExitStack()

    def run_stdin(
        self, program: Program, stdin: str, cpu_seconds: float | None = None, output_bytes: int | None = None
    ) -> Outcome:
        return self._backend.run(harness(program), stdin, cpu_seconds, output_bytes)

    def open_calls(self, program: Program, cpu_seconds: float | None = None) -> FusionCalls:
        return FusionCalls(self._backend, program, cpu_seconds)

    def open_tests(self, setup: str, tests: str, names: list[str], cpu_seconds: float | None = None) -> Calls:
        """The tests' own process, on this machine (it runs the data set's code, not the answer)."""
        sample = self._local.enter_context(self._backend.local_tests().sample())
        return sample.open_tests(setup, tests, names, cpu_seconds)

    def close(self) -> None:
        self._local.close()


class FusionCalls:
    """Function calls as separate executions: the program, then one call."""

    def __init__(self, backend: FusionBackend, program: Program, cpu_seconds: float | None):
        self._backend, self._program, self._cpu_seconds = backend, program, cpu_seconds
        self._outcome = Outcome()
        self._pending: dict[str, Any] | None = None

    def call(self, request: dict[str, Any]) -> bytes | None:
        self.send(request)
        return self.next_reply()

    def send(self, request: dict[str, Any]) -> None:
        self._pending = request

    def next_reply(self) -> bytes | None:
        if self._pending is None:
            return None
        request, self._pending = self._pending, None
        self._outcome = self._backend.run(harness(self._program, request), "", self._cpu_seconds)
        if self._outcome.reason or self._outcome.exit:
            return None
        _, found, reply = self._outcome.stdout.rpartition(MARK.encode())
        if not found:
            self._outcome.exit = 1
            return None
        return reply.strip()

    def finish(self) -> Outcome:
        return self._outcome
