"""The few lines of a verl log that say why a run failed.

A failing run ends in hundreds of lines: the same exception wrapped once per Ray call, and between them the log of every
worker. What a person needs is the innermost Python exception and where it was raised.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_WORKER = re.compile(r"^\((?:[\w. ]*pid=(?P<pid>\d+)|raylet)(?:, ip=[^)]*)?\) ?")
_REPEATED = re.compile(r" ?\[repeated \d+x across cluster\].*$")
_EXCEPTION = re.compile(r"(?P<type>[A-Za-z_][\w.]*)(?:\(\w+\))?(?:: (?P<message>.*))?")
_NAMED_EXCEPTION = re.compile(r"(Error|Exception|Exit|Interrupt|Timeout|Warning|Refused|Failed|Invalid)$")
_FRAME = re.compile(r'\s+File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>.+)')
# What our own lines say of a run that goes on; all others say why it ends.
TOLD = ("warning: ", "note: ", "differs ", "variant ", "reward ")
_REFUSAL = re.compile(rf"srpo: (?!{'|'.join(TOLD)})(?P<sentence>.+)")
_OF_RAY = re.compile(r"ray\.exceptions\.|ray::|RayTaskError|RayActorError")


@dataclass(frozen=True)
class LoggedException:
    """One exception as a log shows it."""

    text: str  # type and message, several lines at most
    where: str | None  # file:line in function, of the innermost frame
    by_driver: bool  # printed by the main process, not by a Ray worker
    of_ray: bool  # Ray's own, which only says that something else failed


def clean(line: str) -> str:
    """Without colours, without the `(Worker pid=…)` Ray puts in front, without `[repeated 2x across cluster]`."""
    return _REPEATED.sub("", _WORKER.sub("", _COLOUR.sub("", line).rstrip()))


def _printer(line: str) -> str:
    """Who printed a line without colours: pid of a worker, "raylet", or nothing for the main process."""
    worker = _WORKER.match(line)
    return (worker["pid"] or "raylet") if worker else ""


def find_exceptions(log: str) -> list[LoggedException]:
    """Every exception that ends a traceback, in the order of the log."""
    found = []
    where: dict[str, str] = {}  # innermost frame so far, by who printed it
    lines = [_COLOUR.sub("", line).rstrip() for line in log.splitlines()]
    for index, line in enumerate(lines):
        printer, text = _printer(line), clean(line)
        if frame := _FRAME.match(text):
            where[printer] = f"{frame['file']}:{frame['line']} in {frame['function']}"
            continue
        match = _EXCEPTION.fullmatch(text)
        if printer not in where or match is None or not _NAMED_EXCEPTION.search(match["type"]):
            continue
        found.append(
            LoggedException(
                text="\n".join([text, *_continuation(lines, index, printer)]),
                where=where.pop(printer),
                by_driver=not printer,
                of_ray=_OF_RAY.match(text) is not None,
            )
        )
    return found


def explain(log: str, *, tail: int = 12) -> str:
    """Why the run that wrote `log` failed, in a few lines.

    In order: sentences with which the configuration was refused; what stopped the main process (the innermost exception
    of its last traceback); the last exception of any worker; Ray's own words; the last lines.
    """
    refusals = [match["sentence"] for line in log.splitlines() if (match := _REFUSAL.fullmatch(clean(line)))]
    if refusals:
        return "\n".join(refusals)
    exceptions = find_exceptions(log)
    for wanted in (
        lambda e: e.by_driver and not e.of_ray,
        lambda e: not e.of_ray,
        lambda e: True,
    ):
        if chosen := [exception for exception in exceptions if wanted(exception)]:
            last = chosen[-1]
            return last.text + (f"\n  at {last.where}" if last.where else "")
    lines = [line for line in map(clean, log.splitlines()) if line.strip()]
    return "\n".join(lines[-tail:]) or "the log is empty"


def _continuation(lines: list[str], index: int, printer: str, *, limit: int = 5) -> list[str]:
    """Further lines of a message: up to a blank line, an indented one's end, or another printer."""
    more: list[str] = []
    for line in lines[index + 1 : index + 1 + limit]:
        text = clean(line)
        if _printer(line) != printer or not text.strip() or _FRAME.match(text):
            break
        if text.startswith(("Traceback ", "The above exception", "During handling", "Set the environment variable")):
            break
        if _EXCEPTION.fullmatch(text) and _NAMED_EXCEPTION.search(text.split(":")[0]):
            break
        more.append(text)
    return more
