"""What is drawn: the metrics of the paper's Figures 1, 4 and 5 and a few more, by step and by training time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workflows.metrics_log import series
from workflows.report.labels import order
from workflows.report.reported_run import ReportedRun

# Points of one line at most; longer ones are averaged in bins of equal size.
MAX_POINTS = 120
STEP, TIME = "step", "training time"

Line = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Metric:
    """One quantity. `scale` is 100 for shares shown in per cent."""

    key: str
    title: str
    unit: str
    names: tuple[str, ...] = ()
    scale: float = 1.0


HELD_OUT, SECONDS = "held_out", "seconds_per_step"
METRICS = (
    Metric(HELD_OUT, "Held-out accuracy", "%", scale=100),
    Metric("train_accuracy", "Rollouts that are correct", "%", ("srpo/accuracy", "critic/score/mean"), 100),
    Metric("entropy", "Policy entropy", "nats", ("actor/entropy",)),
    Metric("student_entropy", "Student entropy on routed tokens", "nats", ("srpo/student_entropy",)),
    Metric("teacher_entropy", "Teacher entropy on routed tokens", "nats", ("srpo/teacher_entropy",)),
    Metric("response_length", "Response length", "tokens", ("response_length/mean",)),
    Metric(SECONDS, "Seconds per training step", "s"),
    Metric("routed_share", "Share routed to self-distillation", "%", ("srpo/routed_share",), 100),
    Metric("divergence", "Divergence per routed token", "nats", ("srpo/divergence",)),
    Metric("grad_norm", "Gradient norm", "", ("actor/grad_norm",)),
    Metric("grad_norm_grpo", "Gradient norm, GRPO branch", "", ("srpo/grad_norm/grpo",)),
    Metric("grad_norm_sdpo", "Gradient norm, SDPO branch", "", ("srpo/grad_norm/sdpo",)),
)


@dataclass(frozen=True)
class MethodCurves:
    """Lines of one method: one per run, and where there are several their mean with the lowest and highest."""

    method: str
    runs: list[Line]
    mean: Line | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None


@dataclass(frozen=True)
class Panel:
    """One picture: a metric of one model on one benchmark, over steps or over time."""

    metric: Metric
    model: str
    benchmark: str
    axis: str
    time_unit: str
    curves: list[MethodCurves]

    @property
    def x_label(self) -> str:
        return STEP if self.axis == STEP else f"{TIME} ({self.time_unit})"

    @property
    def y_label(self) -> str:
        return f"{self.metric.title} ({self.metric.unit})" if self.metric.unit else self.metric.title

    def alt(self) -> str:
        """The picture in words: where each line begins and ends."""
        parts = [f"{self.y_label} over {self.x_label}, {self.model}, {self.benchmark}."]
        for curves in self.curves:
            x, y = curves.mean or curves.runs[0]
            runs = f"{len(curves.runs)} runs, mean" if curves.mean else "1 run" if len(curves.runs) == 1 else "a run"
            parts.append(f"{curves.method} ({runs}): {y[0]:.3g} at {x[0]:.3g}, {y[-1]:.3g} at {x[-1]:.3g}.")
        return " ".join(parts)


def panels(runs: Sequence[ReportedRun]) -> list[tuple[Panel, Panel]]:
    """(over steps, over time) of every metric that was logged: held-out accuracy by benchmark, the rest by data.

    A run validated on several benchmarks is one run of training. Panels over time may be without curves.
    """
    found = []
    for model in sorted({run.model for run in runs}):
        own = [run for run in runs if run.model == model]
        for benchmark in sorted({name for run in own for name in run.held_out}):
            found += _panels([run for run in own if benchmark in run.held_out], METRICS[:1], benchmark)
        for data in sorted({run.data for run in own}):
            found += _panels([run for run in own if run.data == data], METRICS[1:], data)
    return found


def _panels(runs: Sequence[ReportedRun], metrics: Sequence[Metric], benchmark: str) -> list[tuple[Panel, Panel]]:
    unit, seconds = _time_unit(runs)
    found = []
    for metric in metrics:
        step, time = (
            Panel(metric, runs[0].model, benchmark, axis, unit, _curves(runs, metric, benchmark, axis, seconds))
            for axis in (STEP, TIME)
        )
        if step.curves:
            found.append((step, time))
    return found


def _time_unit(runs: Sequence[ReportedRun]) -> tuple[str, float]:
    longest = max((run.clock.total for run in runs), default=0.0)
    return next(((name, size) for name, size in (("h", 3600.0), ("min", 60.0)) if longest >= 2 * size), ("s", 1.0))


def _curves(
    runs: Sequence[ReportedRun], metric: Metric, benchmark: str, axis: str, unit_seconds: float
) -> list[MethodCurves]:
    found = []
    for method in sorted({run.method for run in runs}, key=order):
        lines = [
            line
            for run in runs
            if run.method == method and (line := _line(run, metric, benchmark, axis, unit_seconds)) is not None
        ]
        if lines:
            found.append(_with_mean(method, lines))
    return found


def _line(run: ReportedRun, metric: Metric, benchmark: str, axis: str, unit_seconds: float) -> Line | None:
    points: Sequence[tuple[int, float]]
    if metric.key == HELD_OUT:
        points = run.held_out.get(benchmark, [])
    elif metric.key == SECONDS:
        points = list(run.clock.seconds.items())
    else:
        points = series(run.run.records, *metric.names)
    if axis == TIME:
        points = [(step, value) for step, value in points if step in run.clock.elapsed]
    if not points:
        return None
    steps, values = np.array(points, dtype=float).T
    x = steps if axis == STEP else np.array([run.clock.elapsed[int(step)] for step in steps]) / unit_seconds
    return _thinned(x, metric.scale * values)


def _thinned(x: np.ndarray, y: np.ndarray) -> Line:
    if len(x) <= MAX_POINTS:
        return x, y
    starts = np.arange(0, len(x), -(-len(x) // MAX_POINTS))
    counts = np.diff([*starts, len(x)])
    return np.add.reduceat(x, starts) / counts, np.add.reduceat(y, starts) / counts


def _with_mean(method: str, lines: list[Line]) -> MethodCurves:
    """The mean is taken where all runs have been: interpolated between their points, never beyond them."""
    start, end = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    grid = np.unique(np.concatenate([x for x, _ in lines]))
    grid = grid[(grid >= start) & (grid <= end)]
    if len(grid) > MAX_POINTS:
        grid = np.linspace(start, end, MAX_POINTS)
    if len(lines) < 2 or len(grid) < 2:
        return MethodCurves(method, lines)
    values = np.stack([np.interp(grid, x, y) for x, y in lines])
    return MethodCurves(method, lines, (grid, values.mean(0)), values.min(0), values.max(0))
