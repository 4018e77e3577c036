"""The pictures of one step: the group, the tokens of a distilled answer, one token's probabilities."""

from __future__ import annotations

from pathlib import Path

from laboratory.figures import COLOURS
from laboratory.one_group import OneStep
from laboratory.one_step_text import widest

GRPO, SDPO = COLOURS["grpo"], COLOURS["sdpo"]


def draw(step: OneStep, folder: Path) -> None:
    """Write `group.svg`, `tokens.svg` and `top_k.svg`; every bar has its number beside it."""
    import matplotlib

    matplotlib.use("Agg")
    # Without these two a figure of the same numbers would differ from run to run.
    matplotlib.rcParams["svg.hashsalt"] = "srpo"
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 2.4), layout="constrained")
    rows = range(len(step.responses))
    colours = [SDPO if step.plan.routed[row] else GRPO for row in rows]
    names = []
    for row in rows:
        sibling = int(step.plan.routing.demonstration[row])
        route = f"SDPO, shown {sibling}" if step.plan.routed[row] else "GRPO"
        names.append(f"{row}: {step.text(row).splitlines()[-1]} ({route})")
    bars = axes.barh(names, step.advantages, color=colours)
    axes.bar_label(bars, [f"{value:+.2f}" for value in step.advantages], padding=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.margins(x=0.2)
    axes.invert_yaxis()
    axes.set(title="advantage: blue acts, orange is distilled instead")
    figure.savefig(folder / "group.svg", metadata={"Date": None})
    plt.close(figure)

    routed = step.routed[0]
    pieces = step.pieces(step.responses[routed.row])
    labels = [f"{i}: {piece}" for i, piece in enumerate(pieces)]
    figure, panels = plt.subplots(1, 3, figsize=(10, 5.5), sharey=True, layout="constrained")
    for panel, (title, values) in zip(
        panels,
        (
            ("divergence, nats", routed.divergence),
            ("teacher's entropy, nats", routed.entropy),
            ("weight", routed.weight),
        ),
        strict=True,
    ):
        numbers = values.tolist()
        bars = panel.barh(range(len(numbers)), numbers, color=SDPO)
        panel.bar_label(bars, [f"{value:.3f}" for value in numbers], padding=2, fontsize=8)
        panel.margins(x=0.2)
        panel.set(title=title)
    panels[0].set_yticks(range(len(labels)), labels, family="monospace")
    panels[0].invert_yaxis()
    figure.savefig(folder / "tokens.svg", metadata={"Date": None})
    plt.close(figure)

    at = widest(routed)
    names = [*step.pieces(routed.ids[at]), "others"]
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    for shift, name, listed, colour in (
        (-0.2, "student", routed.student[at], GRPO),
        (0.2, "teacher", routed.teacher[at], SDPO),
    ):
        values = [*listed.tolist(), 1 - float(listed.sum())]
        bars = axes.bar([i + shift for i in range(len(names))], values, width=0.4, label=name, color=colour)
        axes.bar_label(bars, [f"{value:.3f}" for value in values], fontsize=8)
    axes.set_xticks(range(len(names)), names, family="monospace")
    axes.set(title=f"token {at} of answer {routed.row}: probabilities", ylim=(0, 1.1))
    axes.legend()
    figure.savefig(folder / "top_k.svg", metadata={"Date": None})
    plt.close(figure)
