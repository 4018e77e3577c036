"""Markdown tables, and how numbers stand in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean
from typing import Any

from workflows.report.intervals import estimate


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def of_kind(record: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [line for line in record if line["kind"] == kind]


def listed(seeds: Iterable[int]) -> str:
    return ", ".join(str(seed) for seed in sorted(seeds))


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def number(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def spread(values: Sequence[float], *, sign: bool = False, unit: float = 100.0) -> str:
    """Mean and half width of its 95 % t interval, times `unit` (in %); below three values the mean alone."""
    found = estimate([unit * value for value in values])
    if found is None:
        raise ValueError("there is no mean of no values.")
    text = f"{found.mean:+.1f}" if sign else f"{found.mean:.1f}"
    return text if found.count < 3 else f"{text} ± {found.half_width:.1f}"


def mean_of(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return mean(present) if present else None
