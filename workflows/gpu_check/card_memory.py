"""What NVIDIA's driver says of the card that torch has first: its version, and the memory in use of all processes."""

from __future__ import annotations

import functools
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress

MIB = 2**20


def query(field: str) -> str | None:
    """A field of `nvidia-smi --query-gpu`; None if there is no such program or it does not answer."""
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits", f"--id={_first_card()}"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    return None


@functools.cache
def _first_card() -> str:
    """nvidia-smi counts all cards of the machine, torch those of CUDA_VISIBLE_DEVICES, and in another order."""
    import torch

    return f"GPU-{torch.cuda.get_device_properties(0).uuid}" if torch.cuda.is_available() else "0"


def used_bytes() -> float | None:
    """Bytes in use; None if the driver does not say."""
    with suppress(TypeError, ValueError):
        return float(query("memory.used")) * MIB  # type: ignore[arg-type]
    return None


class CardMemory:
    """Reads the memory every `interval` seconds while the context is open."""

    def __init__(self, read: Callable[[], float | None] = used_bytes, interval: float = 0.25):
        self.samples: list[float] = []
        self._read, self._interval = read, interval
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> CardMemory:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._ended.is_set():
            if (found := self._read()) is None:
                return
            self.samples.append(found)
            self._ended.wait(self._interval)

    @property
    def peak(self) -> float:
        return max(self.samples, default=0.0)

    def deepest_fall(self) -> float:
        """The most bytes that were given back between a moment and a later one after which memory rose again as much.

        The end of the run, where everything is given back, is no such fall.
        """
        best = 0.0
        rises_after: list[float] = []
        highest = 0.0
        for value in reversed(self.samples):
            rises_after.append(highest)
            highest = max(highest, value)
        top = 0.0
        for value, later in zip(self.samples, reversed(rises_after), strict=True):
            best = max(best, min(top, later) - value)
            top = max(top, value)
        return best
