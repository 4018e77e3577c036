"""Accuracy and routed share over the steps of a run, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workflows.metrics_log import Record, series


def plot_run(records: Sequence[Record], path: Path, *, title: str) -> None:
    """Write a PNG: held-out accuracy where it was measured, accuracy of the rollouts and routed share at every step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    trained = [record for record in records if record.step > 0]
    figure, axes = plt.subplots(figsize=(8, 4.5), dpi=120, layout="constrained")
    for label, names, colour in (
        ("rollouts correct", ("srpo/accuracy", "critic/score/mean"), "tab:blue"),
        ("routed to self-distillation", ("srpo/routed_share",), "tab:orange"),
    ):
        points = series(trained, *names)
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, [100 * value for value in values], color=colour, linewidth=1.5, label=label)
    held_out = [(record.step, accuracy) for record in records if (accuracy := record.accuracy()) is not None]
    if held_out:
        steps, values = zip(*held_out, strict=True)
        percent = [100 * value for value in values]
        axes.plot(steps, percent, "o--", color="tab:green", linewidth=1.5, markersize=7, label="held-out accuracy")
        for step, value in zip(steps, percent, strict=True):
            axes.annotate(f"{value:.0f}", (step, value), textcoords="offset points", xytext=(0, 8), ha="center")
    axes.set(title=title, xlabel="step", ylabel="per cent", ylim=(-2, 108))
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", framealpha=0.9)
    figure.savefig(path)
    plt.close(figure)
