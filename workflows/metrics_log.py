"""Reading what verl's `file` logger writes: one JSON object `{"step": n, "data": {name: value}}` per line."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workflows.appended_lines import AppendedLines

_HELD_OUT = re.compile(r"val-core/(?P<source>.+)/(?P<variable>[^/]+)/mean@(?P<samples>\d+)")


@dataclass(frozen=True)
class Record:
    """What was logged at one step. Step 0 is the validation before training."""

    step: int
    data: dict[str, float]

    def get(self, *names: str) -> float | None:
        """The first of `names` that was logged."""
        return next((float(self.data[name]) for name in names if name in self.data), None)

    def held_out(self) -> dict[str, float]:
        """Held-out accuracy by data source: verl's `val-core/<source>/acc/mean@N`, or the reward where no `acc` is."""
        return {source: float(self.data[name]) for source, name in self.held_out_names().items()}

    def held_out_names(self) -> dict[str, str]:
        """The metric that is the held-out accuracy of each data source; the largest N where there are several."""
        found: dict[str, tuple[bool, int, str]] = {}
        for name in self.data:
            match = _HELD_OUT.fullmatch(name)
            if match is None or match["variable"] not in ("acc", "reward"):
                continue
            candidate = (match["variable"] == "acc", int(match["samples"]), name)
            found[match["source"]] = max(found.get(match["source"], candidate), candidate)
        return {source: name for source, (_, _, name) in sorted(found.items())}

    def accuracy(self) -> float | None:
        """Held-out accuracy, the plain mean over data sources; None where this step was not validated."""
        values = self.held_out().values()
        return sum(values) / len(values) if values else None


class MetricsLog:
    """Follows a metrics file while another process appends to it. A line that is not complete yet is left for later."""

    def __init__(self, path: Path):
        self.path = path
        self._lines = AppendedLines(path)

    def read_new(self) -> list[Record]:
        """Records since the last call; none while the file does not exist."""
        return [_record(line, self.path) for line in self._lines.read_new() if line.strip()]


def read_metrics(path: Path) -> list[Record]:
    """All complete records of a metrics file."""
    if not path.exists():
        raise FileNotFoundError(f"no metrics at {path}: was `file` in trainer.logger?")
    return MetricsLog(path).read_new()


def read_what_can_be_read(path: Path) -> tuple[list[Record], list[str]]:
    """The finite values of a metrics file, and what was left out, in words: for files that a run's end has damaged."""
    content = path.read_bytes()
    records, problems, unreadable = [], [], []
    undefined: Counter[str] = Counter()
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = _record(line, path)
        except ValueError:
            unreadable.append(number)
            continue
        finite = {name: value for name, value in record.data.items() if _is_finite(value)}
        # verl's logger writes NaN and infinity as null.
        undefined.update(name for name, value in json.loads(line)["data"].items() if value is None)
        undefined.update(record.data.keys() - finite.keys())
        records.append(Record(record.step, finite))
    half_written = unreadable[-1:] == [len(lines)]
    if half_written:
        unreadable.pop()
    if unreadable:
        problems.append(f"{path.name}: lines that cannot be read and are left out: {_some(unreadable)}")
    if half_written:
        problems.append(f"{path.name}: its last line is half written and is left out")
    problems += [f"{path.name}: {count} values of {name} are not finite" for name, count in sorted(undefined.items())]
    return records, problems


def series(records: Sequence[Record], *names: str) -> list[tuple[int, float]]:
    """(step, value) of the records that have one of `names`."""
    return [(record.step, value) for record in records if (value := record.get(*names)) is not None]


def _is_finite(value: float) -> bool:
    """Whether it is a number that a float can hold: JSON has integers of any size."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _some(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:5]))
    return shown if len(numbers) <= 5 else f"{shown} and {len(numbers) - 5} more"


def _record(line: bytes, path: Path) -> Record:
    try:
        entry = json.loads(line)
        numbers = {key: value for key, value in entry["data"].items() if isinstance(value, int | float)}
        return Record(step=int(entry["step"]), data=numbers)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path}: not a line of verl's file logger: {line[:200]!r}") from error
