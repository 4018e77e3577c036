"""Which grader grades which ``data_source``.

Three ways in, later ones winning on a name clash only when they say ``replace=True``:

1. the built-in table :data:`BUILTIN`;
2. the entry-point group ``srpo_verl.rewards``: each entry names a module that calls :func:`register` when imported.
   Entry points are found in every process of the environment, so Ray workers and spawned processes see them;
3. :func:`register` called by hand, in this process only.

A name ending in ``*`` matches every source with that beginning (``aime*``); an exact name wins over a prefix.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

logger = logging.getLogger(__name__)
ENTRY_POINT_GROUP = "srpo_verl.rewards"

#: grader module -> the data sources it serves.
#: Each module defines ``grade(solution, ground_truth, extra_info, options)``.
BUILTIN: dict[str, tuple[str, ...]] = {
    "reward_fns.graders.math": (
        "gsm8k", "openai/gsm8k", "tiny_arithmetic", "smollm2_arithmetic", "math", "lighteval/MATH",
        "DigitalLearningGmbH/MATH-lighteval", "HuggingFaceH4/MATH-500", "math500", "math_dapo", "math_dapo_reasoning",
        "aime*", "amc*", "minerva*", "olympiad*", "numina_*",
    ),
    "reward_fns.graders.mcq": ("sciknoweval*", "gpqa*", "mcq"),
    "reward_fns.graders.tooluse": ("tooluse", "toolalpaca*"),
    "reward_fns.graders.reasoning_gym": ("reasoning_gym/*",),
    "reward_fns.graders.verifiers": ("verifiers/*",),
    "reward_fns.graders.code": (
        "code", "mbpp*", "humaneval*", "livecodebench*", "lcb*", "apps", "codecontests", "codeforces", "taco",
    ),
}  # fmt: skip


class UnknownDataSource(KeyError):
    """No grader is registered for a ``data_source``."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Grader:
    """One registered grader: its function (or the module that holds ``grade``) and what it declared."""

    name: str
    function: Callable[..., Any] | None = None
    module: str = ""
    extras: dict[str, float] = field(default_factory=dict)
    deadline: float | None = None

    @property
    def builtin(self) -> bool:
        return self.function is None

    def load(self) -> Callable[..., Any]:
        return self.function or importlib.import_module(self.module).grade


_lock = threading.RLock()
_graders: dict[str, Grader] = {
    source: Grader(name=source, module=module) for module, sources in BUILTIN.items() for source in sources
}
_entry_points_loaded = False


def register(
    *sources: str, extras: dict[str, float] | None = None, deadline: float | None = None, replace: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: grade the data sources ``sources`` with this function.

    The function is called as ``f(solution_str, ground_truth, extra_info, **kwargs)`` and returns a number (0/1 or
    shaped) or a dict with ``score`` and any of the result keys. It raises
    :class:`reward_fns.GraderUnavailable` when it cannot decide.

    Args:
        sources: names as in the data's ``data_source`` column; a trailing ``*`` matches by beginning.
        extras: further numeric keys the function returns, with the value other sources' samples get.
        deadline: seconds per answer. When given, the function runs in a separate process that is killed at the
            deadline, so it must be importable by name (defined at the top level of an installed module).
        replace: take a name over from another grader.
    """
    if not sources or not all(isinstance(source, str) and source for source in sources):
        raise TypeError('register needs data source names: @register("my_source")')

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        if _returns_later(function):
            raise TypeError(
                f"{function.__qualname__} is asynchronous or a generator, and a grader returns a verdict: use def and "
                "return (asyncio.run inside it runs a coroutine)"
            )
        if deadline is not None and ("<" in function.__qualname__ or function.__module__ == "__main__"):
            raise ValueError(
                f"{function.__qualname__} cannot run under a deadline: its worker process imports it by name, so "
                "define it at the top level of an installed module (or register it without deadline)"
            )
        with _lock:
            for source in sources:
                old = _graders.get(source)
                same = old and old.function and _identity(old.function) == _identity(function)
                if old and not same and not replace:
                    raise ValueError(
                        f"data source {source!r} already has a grader ({_describe(old)}); choose another name or pass "
                        "register(..., replace=True)"
                    )
                _graders[source] = Grader(source, function, extras=dict(extras or {}), deadline=deadline)
        return function

    return decorate


def _returns_later(function: Callable[..., Any]) -> bool:
    kinds = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    return any(is_kind(function) for is_kind in kinds)


def unregister(*sources: str) -> None:
    """Forget graders registered by hand; a built-in source gets its own grader back."""
    with _lock:
        for source in sources:
            _graders.pop(source, None)
            for module, names in BUILTIN.items():
                if source in names:
                    _graders[source] = Grader(source, module=module)


def find(data_source: str) -> Grader:
    """The grader of ``data_source``; an error that lists the known names when there is none."""
    load_entry_points()
    with _lock:
        grader = _graders.get(data_source)
        if grader is None:
            prefixes = [n for n in _graders if n.endswith("*") and str(data_source).startswith(n[:-1])]
            grader = _graders[max(prefixes, key=len)] if prefixes else None
    if grader is None:
        raise UnknownDataSource(_unknown_message(data_source))
    return grader


def known_sources() -> list[str]:
    """All registered data source names, sorted."""
    load_entry_points()
    with _lock:
        return sorted(_graders)


def extra_keys() -> dict[str, float]:
    """The union of the extra result keys that graders declared."""
    with _lock:
        return {key: value for grader in _graders.values() for key, value in grader.extras.items()}


def load_entry_points(force: bool = False) -> None:
    """Import every module of the entry-point group once; one that fails is reported and does not stop the others."""
    global _entry_points_loaded
    with _lock:
        if _entry_points_loaded and not force:
            return
        _entry_points_loaded = True
        for point in entry_points(group=ENTRY_POINT_GROUP):
            try:
                point.load()
            except Exception as error:  # noqa: BLE001 - a broken third-party package, named again if its source is used
                _broken[point.name] = f"{type(error).__name__}: {error}"
                logger.error("reward package %s (%s) could not be loaded: %s", point.name, point.value, error)


_broken: dict[str, str] = {}


def _identity(function: Callable[..., Any]) -> tuple[str, str]:
    return function.__module__, function.__qualname__


def place(data_source: str) -> str:
    """``module.function`` of the grader of ``data_source``, or the module that holds ``grade``."""
    return _describe(find(data_source))


def _describe(grader: Grader) -> str:
    return ".".join(_identity(grader.function)) if grader.function else grader.module


def _unknown_message(data_source: str) -> str:
    with _lock:
        names = sorted(_graders)
    near = difflib.get_close_matches(str(data_source), names, n=1, cutoff=0.5)
    message = f"no grader for data_source {data_source!r}."
    if near:
        message += f" Did you mean {near[0]!r}?"
    message += f" Known: {', '.join(names)}."
    message += (
        f' Add your own with @reward_fns.register("{data_source}") in a package with an entry point in the group '
        f"{ENTRY_POINT_GROUP!r}."
    )
    if _broken:
        message += f" Reward packages that failed to load: {_broken}."
    return message
