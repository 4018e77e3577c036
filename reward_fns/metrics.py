"""Latency, time-outs and infra errors per data source, kept over the last answers of this process.

The same facts travel in every result (``grade_seconds``, ``timed_out``, ``infra_error``), so a trainer can aggregate
over all its workers; this is the view of one process, for logs and for tests.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import Any


def percentile(values: Iterable[float], q: float) -> float:
    """The nearest-rank percentile ``q`` (0-100) of ``values``; 0 when there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * q / 100))] if ordered else 0.0


def summarize(results: Iterable[Mapping[str, Any]], prefix: str = "reward/") -> dict[str, float]:
    """Step metrics from result dictionaries: p50 and p99 latency, and the rates of time-outs and infra errors."""
    rows = list(results)
    if not rows:
        return {}
    seconds = [float(row["grade_seconds"]) for row in rows]
    metrics = {f"{prefix}latency_p50": percentile(seconds, 50), f"{prefix}latency_p99": percentile(seconds, 99)}
    for key in ("timed_out", "infra_error", "format_ok"):
        metrics[f"{prefix}{key}"] = sum(float(row[key]) for row in rows) / len(rows)
    isolation = [float(row["isolation"]) for row in rows if row["isolation"]]
    if isolation:
        metrics[f"{prefix}isolation_min"] = min(isolation)
    return metrics


class Latency:
    """A thread-safe window of the last ``size`` results of each source."""

    def __init__(self, size: int = 4096):
        self._lock = threading.Lock()
        self._rows: dict[str, deque[dict[str, float]]] = defaultdict(lambda: deque(maxlen=size))

    def record(self, source: str, result: Mapping[str, Any]) -> None:
        keys = ("grade_seconds", "timed_out", "infra_error", "format_ok", "isolation")
        with self._lock:
            self._rows[source].append({key: float(result[key]) for key in keys})

    def snapshot(self) -> dict[str, float]:
        """``reward/<source>/latency_p50`` and the like for every source seen by this process."""
        with self._lock:
            rows = {source: list(items) for source, items in self._rows.items()}
        metrics: dict[str, float] = {}
        for source, items in rows.items():
            metrics.update(summarize(items, prefix=f"reward/{source}/"))
        return metrics


LATENCY = Latency()
