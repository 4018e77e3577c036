"""What a check was asked to do."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from workflows.gpu_check.machine import ROOT

METHODS = ("grpo", "sdpo", "srpo")


class NotRunError(Exception):
    """A stage cannot run here; the message says why and what would mend it."""


@dataclass(frozen=True)
class Settings:
    """Of one check.

    Attributes:
        platform: "gpu", or "cpu" for a rehearsal.
        folder: where results, logs and runs go.
        limits: seconds of each stage.
        select: `-k` of pytest, for the stages that are tests.
        full: the worker stage runs all tests of the worker.
        model: folder of the model of the stage `stack`, or "tiny"; None looks for SmolLM2-135M.
        methods, steps: of the stage `stack`.
        demo_steps: of the stage `demo`; None for its own number.
    """

    platform: str
    folder: Path
    limits: dict[str, float] = field(default_factory=dict)
    select: str | None = None
    full: bool = False
    model: str | None = None
    methods: tuple[str, ...] = METHODS
    steps: int = 20
    demo_steps: int | None = None

    @property
    def gpu(self) -> bool:
        return self.platform == "gpu"


def need(modules: Iterable[str], mend: str) -> None:
    """Raise NotRunError naming what of `modules` is not installed."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise NotRunError(f"not installed here: {', '.join(missing)}; {mend}")


def clone() -> Path:
    """The repository that this is run from. Raises NotRunError for an installed package, which has no tests."""
    if not (ROOT / "tests" / "gpu").is_dir():
        raise NotRunError("the tests are not part of the installed package: run it from a clone of the repository")
    return ROOT
