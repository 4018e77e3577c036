"""What the stages found, as data: the JSON file of the results, and the exit status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

FORMAT = 1
# A peak that is planned this near to the measured one is called right.
NEAR = 0.15


class Outcome(StrEnum):
    """Of a check: `skipped` has a reason. Of a stage: `not run` says why, and is never counted as passed."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        reason: why it failed or was skipped.
        figures: what it measured, by name, with units.
        said: what it printed.
    """

    name: str
    outcome: Outcome
    seconds: float = 0.0
    reason: str = ""
    figures: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Peak:
    """A peak of memory as `srpo plan` gives it and as it was measured; bytes."""

    what: str
    planned: float
    measured: float

    @property
    def off(self) -> float:
        """(planned - measured) / measured."""
        return self.planned / self.measured - 1

    @property
    def near(self) -> bool:
        return abs(self.off) <= NEAR


@dataclass(frozen=True)
class Stage:
    """A stage that was asked for. `reason`: why it did not run, or why it ended before its end.

    A stage's function gives checks, peaks, reason and log; `run` adds its name, title, seconds and limit.
    """

    name: str = ""
    title: str = ""
    checks: list[Check] = field(default_factory=list)
    peaks: list[Peak] = field(default_factory=list)
    seconds: float = 0.0
    limit: float = 0.0
    reason: str = ""
    log: str = ""

    def count(self, outcome: Outcome) -> int:
        return sum(check.outcome is outcome for check in self.checks)

    @property
    def outcome(self) -> Outcome:
        """Failed if a check failed, or if checks ran and there is a reason why others did not; passed if one passed."""
        if self.count(Outcome.FAILED):
            return Outcome.FAILED
        if not self.count(Outcome.PASSED):
            return Outcome.NOT_RUN
        return Outcome.FAILED if self.reason else Outcome.PASSED

    @property
    def why_not(self) -> str:
        """Why nothing ran: its own reason, or that of every check."""
        reasons = [self.reason] if self.reason else sorted({check.reason for check in self.checks})
        return "; ".join(reasons) or "it has no checks"


@dataclass(frozen=True)
class Report:
    """All of it. `platform`: gpu, or cpu for a rehearsal."""

    platform: str
    started: str
    machine: dict[str, Any]
    stages: list[Stage]

    @property
    def rehearsal(self) -> bool:
        return self.platform != "gpu"

    @property
    def exit_status(self) -> int:
        """0: every stage that was asked for passed. 1: one failed. 3: none failed, and one did not run."""
        outcomes = {stage.outcome for stage in self.stages}
        if Outcome.FAILED in outcomes:
            return 1
        return 3 if Outcome.NOT_RUN in outcomes or not outcomes else 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        content = {"format": FORMAT, "rehearsal": self.rehearsal, "exit_status": self.exit_status, **asdict(self)}
        for stage, kept in zip(self.stages, content["stages"], strict=True):
            kept["outcome"] = stage.outcome
        return content


def read_report(content: Mapping[str, Any]) -> Report:
    """The report of a JSON file. Raises ValueError if it is of another format."""
    if content.get("format") != FORMAT:
        raise ValueError(f"results of format {content.get('format')!r}, and this version reads {FORMAT}")
    stages = []
    for stage in content["stages"]:
        checks = [Check(**{**check, "outcome": Outcome(check["outcome"])}) for check in stage["checks"]]
        own = {key: value for key, value in stage.items() if key not in ("outcome", "checks", "peaks")}
        stages.append(Stage(**own, checks=checks, peaks=[Peak(**peak) for peak in stage["peaks"]]))
    return Report(content["platform"], content["started"], content["machine"], stages)
