"""The figures of docs/evidence.md: mean and range over the seeds that all methods of a panel have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from laboratory.results import Record

if TYPE_CHECKING:
    from laboratory.tables import Evidence

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = {
    "grpo": "#0072B2",
    "sdpo": "#D55E00",
    "srpo": "#009E73",
    "srpo_routing_only": "#999933",
}
COLOURS |= {"advantage_mix": "#CC79A7", "sdpo_correct_only": "#E69F00", "sdpo_incorrect_only": "#555555"}
COLOURS |= {"srpo_frozen": "#56B4E9", "sdpo_frozen": "#E69F00"}


def draw(evidence: Evidence, folder: Path) -> None:
    """Write `curves.svg`, `ablations.svg` and `teachers.svg` into the folder."""
    import matplotlib

    matplotlib.use("Agg")
    # Without these two a figure of the same numbers would differ from run to run.
    matplotlib.rcParams["svg.hashsalt"] = "srpo"
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot as plt

    from laboratory.tables import NAMES

    def panel(
        axes,
        labels: Sequence[str],
        points: Callable[[Record], dict[float, float]],
        title: str,
        xlabel: str = "step",
        runs: dict[str, dict[int, Record]] = evidence.runs,
    ) -> None:
        present = [label for label in labels if label in runs]
        # Curves of different seeds cannot be compared: seeds differ more than methods do.
        seeds = set.intersection(*(set(runs[label]) for label in present)) if present else set()
        for label in present if seeds else []:
            curves = [points(runs[label][seed]) for seed in sorted(seeds)]
            places = [x for x in curves[0] if all(x in curve for curve in curves)]
            values = [[curve[x] for curve in curves] for x in places]
            middle = [sum(column) / len(column) for column in values]
            axes.plot(places, middle, color=COLOURS[label], label=NAMES[label], linewidth=1.5)
            low, high = [min(column) for column in values], [max(column) for column in values]
            axes.fill_between(places, low, high, color=COLOURS[label], alpha=0.12, linewidth=0)
        axes.set(title=title, xlabel=xlabel)
        axes.grid(alpha=0.3)

    def accuracy(clock: str) -> Callable[[Record], dict[float, float]]:
        return lambda record: {line[clock]: 100 * line["accuracy"] for line in record.evals}

    def answers(key: str) -> Callable[[Record], dict[float, float]]:
        return lambda record: {line["step"]: 100 * line[key] for line in record.evals}

    def metric(key: str) -> Callable[[Record], dict[float, float]]:
        return lambda record: {line["step"]: line[key] for line in record.train if key in line}

    main = ("grpo", "sdpo", "srpo")
    figure, grid = plt.subplots(2, 4, figsize=(16, 7), layout="constrained")
    panel(grid[0, 0], main, accuracy("step"), "held-out avg@16, %")
    panel(grid[0, 1], main, accuracy("clock"), "held-out avg@16, %", "CPU seconds of training")
    panel(grid[0, 2], main, metric("actor/entropy"), "student entropy, nats")
    panel(grid[0, 3], main, metric("srpo/teacher_entropy"), "teacher entropy on routed tokens, nats")
    panel(grid[1, 0], main, metric("srpo/routed_share"), "routed share")
    panel(grid[1, 1], main, metric("response_length"), "response length, tokens")
    panel(grid[1, 2], ("srpo",), metric("srpo/grad_norm/grpo"), "gradient norm by branch, SRPO")
    panel(grid[1, 3], main, metric("seconds"), "CPU seconds per step")
    if "srpo" in evidence.runs:
        curves = [metric("srpo/grad_norm/sdpo")(record) for record in evidence.runs["srpo"].values()]
        places = [x for x in curves[0] if all(x in curve for curve in curves)]
        grid[1, 2].plot(places, [sum(c[x] for c in curves) / len(curves) for x in places], "--", color="#D55E00")
        lines = grid[1, 2].get_lines()
        grid[1, 2].legend(lines, ["GRPO branch", "SDPO branch"], fontsize=8)
    if grid[0, 0].get_lines():
        grid[0, 0].legend(fontsize=8)
    figure.savefig(folder / "curves.svg", metadata={"Date": None})
    plt.close(figure)

    figure, axes = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
    panel(
        axes[0],
        ("srpo", "srpo_routing_only", "advantage_mix", "grpo"),
        accuracy("step"),
        "SRPO's ablations, %",
    )
    panel(axes[1], ("sdpo", "sdpo_correct_only", "sdpo_incorrect_only", "srpo"), accuracy("step"), "parts of SDPO, %")
    for each in axes:
        if each.get_lines():
            each.legend(fontsize=8)
    figure.savefig(folder / "ablations.svg", metadata={"Date": None})
    plt.close(figure)

    figure, axes = plt.subplots(1, 4, figsize=(16, 3.8), layout="constrained")
    compared = ("srpo", "srpo_frozen")
    panel(axes[0], compared, accuracy("step"), "held-out avg@16, %", runs=evidence.every)
    panel(axes[1], compared, answers("form"), "answers that keep the form, %", runs=evidence.every)
    panel(axes[2], compared, answers("shown_form"), "the teacher's own answers that keep it, %", runs=evidence.every)
    panel(axes[3], compared, metric("srpo/teacher_gain"), "teacher's gain, nats per token", runs=evidence.every)
    if axes[0].get_lines():
        axes[0].legend(fontsize=8)
    figure.savefig(folder / "teachers.svg", metadata={"Date": None})
    plt.close(figure)
