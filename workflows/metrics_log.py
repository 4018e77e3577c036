"""Reading what verl's `file` logger writes: one JSON object `{"step": n, "data": {name: value}}` per line."""

from __future__ import annotations

import json
import re
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
        found: dict[str, tuple[bool, int, float]] = {}
        for name, value in self.data.items():
            match = _HELD_OUT.fullmatch(name)
            if match is None or match["variable"] not in ("acc", "reward"):
                continue
            candidate = (match["variable"] == "acc", int(match["samples"]), float(value))
            found[match["source"]] = max(found.get(match["source"], candidate), candidate)
        return {source: value for source, (_, _, value) in sorted(found.items())}

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


def series(records: Sequence[Record], *names: str) -> list[tuple[int, float]]:
    """(step, value) of the records that have one of `names`."""
    return [(record.step, value) for record in records if (value := record.get(*names)) is not None]


def _record(line: bytes, path: Path) -> Record:
    try:
        entry = json.loads(line)
        numbers = {key: value for key, value in entry["data"].items() if isinstance(value, int | float)}
        return Record(step=int(entry["step"]), data=numbers)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a line of verl's file logger: {line[:200]!r}") from error
