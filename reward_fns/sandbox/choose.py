"""Which backend runs the programs of a configuration."""

from __future__ import annotations

import os
import threading

from reward_fns.sandbox.base import Backend
from reward_fns.sandbox.config import SandboxConfig
from reward_fns.sandbox.fusion import FusionBackend
from reward_fns.sandbox.local import LocalBackend

_backends: dict[tuple[int, SandboxConfig], Backend] = {}
_lock = threading.Lock()


def backend(config: SandboxConfig) -> Backend:
    """This process's backend for ``config``, made on first use (a forked child gets its own)."""
    key = (os.getpid(), config)
    with _lock:
        if key not in _backends:
            _backends[key] = _remote(config) if config.backend == "fusion" else LocalBackend(config)
        return _backends[key]


def _remote(config: SandboxConfig) -> Backend:
    """A remote backend; the data set's own test code, which it may have to call answers from, runs on this machine."""
    return FusionBackend(config, local_tests=lambda: backend(SandboxConfig()))
