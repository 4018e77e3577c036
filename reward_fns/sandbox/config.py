"""Settings of the code sandbox."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from reward_fns.result import BadSettings

ISOLATION = ("auto", "namespaces", "plain")


@dataclass(frozen=True)
class SandboxConfig:
    """How programs are isolated and limited. Limits are per execution (per test)."""

    backend: str = "local"
    """``local``, or ``fusion`` for a SandboxFusion server (then ``url`` is needed)."""
    url: str = ""
    isolation: str = "auto"
    """``namespaces`` (fail when bubblewrap does not work here), ``plain`` (do not try), or ``auto`` (with a warning).
    The environment variable SRPO_SANDBOX_ISOLATION overrides ``auto``."""
    cpu_seconds: float = 6.0
    wall_seconds: float = 0.0
    """0: twice ``cpu_seconds`` plus one. Counted from the start of the execution, not from queueing."""
    sample_seconds: float = 60.0
    """Wall time for all tests of one completion together."""
    memory_mb: int = 1024
    processes: int = 64
    """Processes and threads."""
    file_mb: int = 16
    tmp_mb: int = 64
    """All files of an execution together (namespaces only)."""
    open_files: int = 256
    output_bytes: int = 4 << 20
    concurrency: int = 0
    """Executions at the same time on this machine, over all its processes; 0: one per core."""
    python: str = ""
    """Interpreter for the programs; "": the one running now if the sandbox's user can read it, else the system's."""
    extra_paths: tuple[str, ...] = ()
    """Directories with packages the programs may import (read-only), such as one that holds numpy."""

    def __post_init__(self) -> None:
        if self.backend not in ("local", "fusion"):
            raise BadSettings(f"sandbox.backend={self.backend!r} is unknown: use 'local' or 'fusion'")
        if self.backend == "fusion" and not self.url:
            raise BadSettings("sandbox.backend='fusion' needs sandbox.url, e.g. http://host:8080/run_code")
        if self.url and not _has_host(self.url):
            raise BadSettings(f"sandbox.url={self.url!r} is no address, e.g. http://host:8080/run_code")
        if self.isolation not in ISOLATION:
            raise BadSettings(f"sandbox.isolation={self.isolation!r} is unknown: use one of {', '.join(ISOLATION)}")
        for name in ("cpu_seconds", "sample_seconds", "memory_mb", "processes", "output_bytes"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not value > 0:
                raise BadSettings(f"sandbox.{name} must be a positive number, not {value!r}")
        object.__setattr__(self, "extra_paths", tuple(self.extra_paths))

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> SandboxConfig:
        """A configuration from ``reward_kwargs.sandbox``; an unknown name is an error."""
        if not isinstance(settings, dict):
            raise BadSettings(f"sandbox={settings!r} must be names with values, as {{backend: local}}")
        names = [item.name for item in dataclasses.fields(cls)]
        unknown = sorted(set(settings) - set(names))
        if unknown:
            raise BadSettings(f"unknown sandbox settings {unknown}; known: {', '.join(names)}")
        return cls(**settings)

    @property
    def wanted_isolation(self) -> str:
        if self.isolation != "auto":
            return self.isolation
        value = os.environ.get("SRPO_SANDBOX_ISOLATION") or "auto"
        if value not in ISOLATION:
            raise BadSettings(f"SRPO_SANDBOX_ISOLATION={value!r} is unknown: use one of {', '.join(ISOLATION)}")
        return value

    def limits(self, cpu_seconds: float | None = None) -> dict[str, Any]:
        """The limits of one execution, for the runner; a test may bring its own time limit."""
        cpu = cpu_seconds or self.cpu_seconds
        wall = self.wall_seconds if self.wall_seconds and not cpu_seconds else 2 * cpu + 1
        return {
            "cpu_seconds": cpu,
            "wall_seconds": wall,
            "memory_mb": self.memory_mb,
            "processes": self.processes,
            "file_mb": self.file_mb,
            "open_files": self.open_files,
            "output_bytes": self.output_bytes,
        }


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.scheme and parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number, or beyond 65535
        return False
