"""The metrics of a run over its starts: every step once.

A run that was killed has logged steps after its last checkpoint, which are trained again, or has saved a step that it
had not logged yet. Before a resumed run logs its first line, the first are taken out of the metrics of the earlier
starts, into `superseded.jsonl` beside them, and the second is added from the checkpoint's marker.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srpo_verl.base.files import write_atomically

METRICS, SUPERSEDED = "metrics.jsonl", "superseded.jsonl"


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Those that can be written as JSON: finite numbers."""
    found = {}
    for name, value in metrics.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        if math.isfinite(number):
            found[name] = number
    return found


def settle(root: Path, step: int | None, metrics: Mapping[str, float] | None = None) -> list[int]:
    """Make the lines of the earlier starts in `root/srpo_run` end with `step`; None: there is none, it begins anew.

    Args:
        metrics: of `step`, from its checkpoint, for a run that was killed before it had logged it.

    Returns:
        The steps whose lines were taken out.
    """
    files = sorted((root / "srpo_run").glob(f"*/{METRICS}"))
    taken, last = [], -1
    for file in files:
        kept: list[bytes] = []
        moved: list[bytes] = []
        for line in file.read_bytes().split(b"\n"):
            if not line.strip():
                continue
            number = _step(line)
            late = number is None or step is None or number > step  # None: half a line, of a run that was killed
            (moved if late else kept).append(line)
            if not late and number is not None and _trained(line):
                last = max(last, number)
        if moved:
            with open(file.with_name(SUPERSEDED), "ab") as superseded:
                superseded.writelines(line + b"\n" for line in moved)
            write_atomically(file, b"".join(line + b"\n" for line in kept))
            taken += [number for line in moved if (number := _step(line)) is not None]
    if files and step is not None and last < step and metrics:
        with open(files[-1], "ab") as added:
            added.write(json.dumps({"step": step, "data": dict(metrics)}).encode() + b"\n")
    return taken


def _step(line: bytes) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None


def _trained(line: bytes) -> bool:
    """Not the validation of a checkpoint that a start logs before it trains."""
    return any(not name.startswith("val-") for name in json.loads(line)["data"])
