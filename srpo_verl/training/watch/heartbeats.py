"""Signs of life of Ray actors: one small call at a time is outstanding with each of them.

Ray answers for an actor that died. An actor that is busy answers once it has time, so that a call without an answer
tells for how long an actor has been busy, or stuck. A vLLM server outlives its engine's process, and calls that wait
for the engine may then wait for ever: a server also tells whether it still has one. A rank tells what it raised, for
which the driver may have to wait (`rank_failure`).
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Collection, Mapping
from typing import Any

import ray
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayError, RayTaskError

from srpo_verl.training.watch.rank_failure import raised

# What every call to a dead actor raises; the second if Ray's memory monitor killed it, before the kernel had to.
DEATHS = (ActorDiedError, OutOfMemoryError)


def _sign_of_life(actor: Any, holds_engine: bool) -> tuple[int, bool, str | None]:
    """In the actor: its pid, whether it holds an engine (verl's vLLM server does, an `AsyncLLM`) that has died, and
    what it raised as a rank."""
    return os.getpid(), holds_engine and bool(actor.engine.errored), raised()


class Heartbeats:
    """Of actors by name."""

    def __init__(self) -> None:
        self._asked: dict[str, tuple[ray.ObjectRef, float]] = {}
        self._pids: dict[str, int] = {}
        self._dead: dict[str, str] = {}
        self._looking = threading.Lock()  # the watchdog's thread, and the driver once it has failed

    def look(self, actors: Mapping[str, Any], engines: Collection[str] = ()) -> list[str]:
        """Collect answers and ask again. A sentence for each actor that died, failed or lost its engine by now.

        Args:
            actors: by name.
            engines: names of those that hold an engine.
        """
        with self._looking:
            for name, actor in actors.items():
                if name in self._dead:
                    continue
                if name not in self._asked:
                    question = actor.__ray_call__.remote(_sign_of_life, name in engines)
                    self._asked[name] = (question, time.monotonic())
                reference, _ = self._asked[name]
                if not ray.wait([reference], timeout=0)[0]:
                    continue
                del self._asked[name]
                try:
                    self._pids[name], engine_lost, failure = ray.get(reference)
                    if failure:
                        self._dead[name] = f"{self._called(name)} has failed: {failure}"
                    if engine_lost:
                        self._dead[name] = f"{self._called(name)} has lost its engine: the engine's process died"
                except DEATHS as error:
                    self._dead[name] = f"{self._called(name)} is dead: {death(error)}"
                except RayTaskError as error:  # raised by the question itself, so no answer will ever come
                    self._dead[name] = f"{self._called(name)} cannot be watched: {describe(error)}"
                except RayError:
                    continue  # unreachable for a moment: asked again next time
        return list(self._dead.values())

    def silent(self, *, longer_than: float) -> list[str]:
        """A sentence for each actor that has not answered for so many seconds, longest first."""
        now = time.monotonic()
        waits = {name: now - since for name, (_, since) in self._asked.items() if now - since > longer_than}
        order = sorted(waits, key=lambda name: -waits[name])
        return [f"{self._called(name)} has not answered for {waits[name]:.0f} s" for name in order]

    def _called(self, name: str) -> str:
        return f"{name} (pid {self._pids[name]})" if name in self._pids else name


def death(error: RayError) -> str:
    """Why Ray says an actor died, in a sentence; `error` is one of `DEATHS`."""
    text = " ".join(str(error).split())
    if isinstance(error, OutOfMemoryError):
        used = re.search(r"[\d.]+GB used / [\d.]+GB limit", text)
        return f"Ray killed it because the machine ran out of memory ({used[0] if used else text[:300]})"
    if "connection error code 2" in text or "SIGKILL" in text:
        return (
            "its process was killed (by a signal, or the machine ran out of memory; `dmesg` tells. On GPUs also by "
            "NCCL, when ranks have waited for each other for 10 minutes: the worker's log then speaks of a collective "
            "operation timeout, and the rank that did not come is the one to look at)"
        )
    detail = re.search(r"Worker exit detail: (.+?\.)(?: |$)", text)
    return detail[1] if detail else text[:300]


def remote_cause(error: BaseException) -> BaseException:
    """What a remote call raised, or the exception itself."""
    return error.cause if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException) else error


def describe(error: BaseException) -> str:
    """An exception in a sentence: of a remote call what it raised, of a dead actor its class and why it died."""
    error = remote_cause(error)
    if isinstance(error, DEATHS):
        name = re.search(r"class_name: (?:\S+\.)?(\w+)", str(error))
        return f"{name[1] if name else 'a worker'} is dead: {death(error)}"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
