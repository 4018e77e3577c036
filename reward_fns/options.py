"""Settings of the graders: the ``reward_kwargs`` of a run, checked once and shared by all graders."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from reward_fns.result import BadSettings

logger = logging.getLogger(__name__)
MODES = ("strict", "paper")
#: Arguments verl itself passes to a reward function; they are of no use here.
_FROM_VERL = frozenset(
    {"reward_router_address", "reward_model_tokenizer", "sandbox_fusion_url", "concurrent_semaphore"}
)


@dataclass(frozen=True)
class Options:
    """Grader settings. The defaults are what a training run should use."""

    mode: str = "strict"
    """``strict``: what a careful examiner would do. ``paper``: bug-compatible with the graders of SDPO."""
    feedback: bool = True
    """Fill ``feedback`` with text that may be shown to the teacher."""
    deadline: float = 0.7
    """CPU seconds for one answer's symbolic comparison (math); then its worker is killed and the answer is wrong."""
    partial: bool = False
    """Code: ``score`` is the fraction of tests passed, and all tests are run, instead of all or nothing."""
    sandbox: dict[str, Any] = field(default_factory=dict, hash=False)
    """Code: settings of :class:`reward_fns.sandbox.SandboxConfig`."""
    user: dict[str, Any] = field(default_factory=dict, hash=False)
    """Everything else, handed to user graders."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise BadSettings(f"mode={self.mode!r} is unknown: use one of {', '.join(MODES)}")
        if not self.deadline > 0:
            raise BadSettings(f"deadline={self.deadline!r} must be a positive number of CPU seconds")


def parse_options(kwargs: dict[str, Any]) -> Options:
    """:class:`Options` from keyword arguments; what no field takes goes to ``user``."""
    names = {item.name for item in dataclasses.fields(Options)} - {"user"}
    known = {key: value for key, value in kwargs.items() if key in names}
    user = {key: value for key, value in kwargs.items() if key not in names and key not in _FROM_VERL}
    if "sandbox" in known:
        given = known["sandbox"] or {}
        known["sandbox"] = dict(given) if isinstance(given, Mapping) else given  # SandboxConfig refuses it
    return Options(**known, user=user)


@lru_cache(maxsize=64)
def warn_ignored(source: str, names: tuple[str, ...]) -> None:
    """Say once per source that a built-in grader does not know a setting."""
    logger.warning("the built-in grader of %r ignores the settings %s", source, ", ".join(names))
