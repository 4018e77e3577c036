"""One finding, and a run of many checks in which a broken one does not hide the others."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How bad a finding is; only `fail` makes `srpo doctor` exit with 1."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """A finding: what was looked at, how it is, what was found, and what to do about it (empty if it is well)."""

    name: str
    status: Status
    found: str
    mend: str = ""


def ok(name: str, found: str) -> Check:
    return Check(name, Status.OK, found)


def warn(name: str, found: str, mend: str = "") -> Check:
    return Check(name, Status.WARN, found, mend)


def fail(name: str, found: str, mend: str = "") -> Check:
    return Check(name, Status.FAIL, found, mend)


def run_each(checks: Iterable[tuple[str, Callable[[], Iterable[Check]]]]) -> list[Check]:
    """The findings of all checks, in order. A check that raises is itself a finding that failed."""
    found: list[Check] = []
    for name, check in checks:
        try:
            found += check()
        except (Exception, SystemExit) as error:  # noqa: BLE001  (reported, with where it was raised)
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{frame.filename}:{frame.lineno}"
            found.append(fail(name, f"the check itself failed: {type(error).__name__}: {error} (at {where})"))
    return found
