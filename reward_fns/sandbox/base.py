"""The interface every sandbox backend has, and the outcome of one execution."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

PLAIN, NAMESPACES, REMOTE = 1.0, 2.0, 3.0


@dataclass
class Outcome:
    """How one execution ended. ``replies`` are the raw bytes of what calls returned: untrusted, parse them strictly."""

    exit: int = 0
    reason: str = ""
    """"" (it ended by itself), ``wall``, ``output``, ``stopped``, or ``broken`` (the sandbox was destroyed)."""
    stdout: bytes = b""
    stderr: bytes = b""
    seconds: float = 0.0
    cpu: float = 0.0
    replies: list[bytes] = field(default_factory=list)

    @property
    def timed_out(self) -> bool:
        return self.reason == "wall" or self.exit == -24  # SIGXCPU


@dataclass(frozen=True)
class Program:
    """An answer's code, and the prelude that runs before it in the same namespace."""

    code: str
    prelude: str = ""


class Calls(Protocol):
    """A program that has been loaded and answers calls, one after the other, in one process."""

    def call(self, request: dict[str, Any]) -> bytes | None:
        """The raw reply to ``{"name", "args", "kwargs"}`` (tagged JSON); None when there will be no more replies."""

    def send(self, request: dict[str, Any]) -> None:
        """Send without waiting."""

    def next_reply(self) -> bytes | None:
        """Wait for the next reply; None when there will be no more."""

    def finish(self) -> Outcome:
        """End the program (if it has not ended) and say how it ended."""


class Sample(Protocol):
    """The sandbox of one completion; gone, with everything in it, when its context ends."""

    def run_stdin(
        self, program: Program, stdin: str, cpu_seconds: float | None = None, output_bytes: int | None = None
    ) -> Outcome: ...

    def open_calls(self, program: Program, cpu_seconds: float | None = None) -> Calls: ...

    def open_tests(self, setup: str, tests: str, names: list[str], cpu_seconds: float | None = None) -> Calls: ...


class Backend(Protocol):
    """A way to run programs. ``isolation`` is what goes into the metrics."""

    isolation: float

    def sample(self) -> AbstractContextManager[Sample]: ...
