"""Clocks that a test moves, so that no outcome hangs on how fast a machine is."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Stands still but for `sleep`, which also does what happens meanwhile. Stands for the module `time` too."""

    def __init__(self, meanwhile: Callable[[], object] = lambda: None):
        self.now, self.meanwhile = 0.0, meanwhile

    def __call__(self) -> float:
        return self.now

    monotonic = __call__

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile()


class HoursPass:
    """Stands for the module `time`: as it is until `once()` is true, then an hour later at every look."""

    sleep, time = staticmethod(time.sleep), staticmethod(time.time)

    def __init__(self, once: Callable[[], bool]):
        self.hours, self.once = 0, once

    def monotonic(self) -> float:
        self.hours += self.once()
        return time.monotonic() + 3600 * self.hours
