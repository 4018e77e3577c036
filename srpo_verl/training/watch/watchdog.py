"""A thread that ends a run which waits for something that will not come, and says what it was.

The driver of a synchronous run spends its time in calls that wait: for rollouts, for workers, for weights to arrive. A
worker that was killed makes most of them raise, but not all (verl's replay buffer polls for ever for prompts that a
dead worker took with it), and a worker that is stuck makes none of them raise. So each stage of a step has a limit,
and actors are asked for signs of life. No verl and no Ray in here: `driver_watch` connects both.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from srpo_verl.config import WatchdogConfig

# Seconds a dead worker leaves the driver to fail by itself, with a better traceback than the thread can give.
GRACE = 10.0
# Seconds that a question to a process that may be the stuck one can take.
PATIENCE = 5.0
CLEANING_UP = 60.0
# Seconds within which Ray has noticed a death, after a call failed because of it.
NOTICED = 3.0

T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """What the driver is doing since when; the config key of its limit, and the limit in seconds (0: none)."""

    name: str
    since: float
    key: str
    limit: float


class Watchdog:
    """Knows the stage of the driver, and ends the run if it takes too long or a worker is dead.

    Args:
        config: the limits.
        dead: names and reasons of workers that died, asked every `config.interval` seconds.
        details: sentences about what is being waited for.
        end: called with the report, a sentence per line, on the watchdog's thread; must not return to a run that goes
            on.
        where: "step 3", for the report.
    """

    def __init__(
        self,
        config: WatchdogConfig,
        *,
        dead: Callable[[], list[str]],
        details: Callable[[], list[str]],
        end: Callable[[list[str]], None],
        where: Callable[[], str],
        grace: float = GRACE,
    ):
        self.config, self.grace = config, grace
        self._dead, self._details, self._end, self._where = dead, details, end, where
        self._stages: tuple[Stage, ...] = ()
        self._first_dead: float | None = None
        self._failure: BaseException | None = None
        self._stopped = threading.Event()
        self._driver = threading.get_ident()
        self.failed_in: str | None = None

    @contextmanager
    def stage(self, name: str, key: str | None = None) -> Iterator[None]:
        """The driver's thread does `name` in here; `key` of the config holds the limit (default: the name)."""
        outer, key = self._stages, key or name
        self._stages = (*outer, Stage(name, time.monotonic(), key, getattr(self.config, key)))
        try:
            yield
        except BaseException as error:
            if self._failure is not error:  # the innermost stage is what failed
                self._failure, self.failed_in = error, name
            raise
        finally:
            self._stages = outer

    def in_stage(self, name: str, function: Callable[..., T], key: str | None = None) -> Callable[..., T]:
        """`function`, whose calls are a stage."""

        @functools.wraps(function)
        def staged(*args: Any, **kwargs: Any) -> T:
            with self.stage(name, key):
                return function(*args, **kwargs)

        return staged

    def closing(self) -> None:
        """From now on the driver only cleans up after a failure, and has `CLEANING_UP` seconds for it."""
        self._stages = (Stage("cleaning up", time.monotonic(), "", CLEANING_UP),)

    def deaths(self) -> list[str]:
        """Which workers are dead, after something failed: perhaps because of that, and before Ray has noticed it."""
        deadline = time.monotonic() + NOTICED
        while not (found := within(PATIENCE, self._dead)) and time.monotonic() < deadline:
            time.sleep(0.2)
        return found or []

    def start(self) -> None:
        """Watch the calling thread. `interval: 0` switches everything off."""
        self._driver = threading.get_ident()
        if self.config.interval > 0:
            threading.Thread(target=self._watch, name="srpo watchdog", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(self.config.interval):
            reason = self.reason_to_end()
            if reason is not None:
                self._end([*reason, *(within(PATIENCE, self._details) or []), self._driver_is_at()])
                return

    def reason_to_end(self) -> list[str] | None:
        """Why the run has to end now, None if it can go on."""
        now = time.monotonic()
        if dead := within(PATIENCE, self._dead):
            self._first_dead = self._first_dead or now
            if now - self._first_dead >= self.grace:
                return [f"{self._doing()}, but {reason}" for reason in dead]
        for stage in self._stages:
            seconds = now - stage.since
            if 0 < stage.limit < seconds:
                limit = f"srpo.watchdog.{stage.key}={stage.limit:g}" if stage.key else f"{stage.limit:g}"
                return [f"{stage.name} ({self._where()}) has taken {seconds:.0f} s, more than {limit}"]
        return None

    def _doing(self) -> str:
        if not self._stages:
            return f"the run went on ({self._where()})"
        stage = self._stages[-1]
        return f"{stage.name} ({self._where()}) waits since {time.monotonic() - stage.since:.0f} s"

    def _driver_is_at(self) -> str:
        frame = sys._current_frames().get(self._driver)
        frames = traceback.extract_stack(frame)[-6:] if frame is not None else []
        places = [f"{entry.filename.rsplit('site-packages/')[-1]}:{entry.lineno} {entry.name}" for entry in frames]
        return "the driver is at " + " < ".join(reversed(places))


def within(seconds: float, question: Callable[[], T]) -> T | None:
    """The answer, None if it takes longer. An exception is printed by its thread, and no answer."""
    answers: list[T] = []
    thread = threading.Thread(target=lambda: answers.append(question()), daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else None
