"""Draws panels with matplotlib: SVG that takes its colours from the page, and PNG for papers and slides."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Sequence
from typing import Any

import matplotlib

from workflows.report.curves import Panel
from workflows.report.labels import ORDER

matplotlib.use("Agg")
from matplotlib.figure import Figure

# Okabe and Ito's colours, in an order in which neighbours differ in lightness too; style and marker repeat the message.
PALETTE = ("#D55E00", "#009E73", "#0072B2", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Colours that nothing else has, which the page replaces by its own.
_INK, _MUTED = "#010203", "#040506"
_SLOTS = tuple(f"#0a0b{number:02x}" for number in range(len(PALETTE)))
# Markers on a line, about.
MARKED_POINTS = 14
_SVG_ATTRIBUTES = (
    'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" aria-hidden="true" focusable="false"'
)


def style_of(methods: Sequence[str]) -> dict[str, int]:
    """A number for each method: its colour, line style and marker. The paper's methods always have the same."""
    styles = {method: ORDER.index(method) for method in methods if method in ORDER}
    free = itertools.chain(
        (number for number in range(len(PALETTE)) if number not in styles.values()), itertools.count(len(PALETTE))
    )
    return styles | {method: next(free) for method in methods if method not in ORDER}


def svg(panel: Panel, styles: dict[str, int], *, name: str) -> str:
    """An `<svg>` element. Its colours are the page's variables --ink, --muted, --c0..; ids start with `name`."""
    # Fixed margins: axes of all pictures are aligned on the page.
    figure = Figure(figsize=(5.8, 2.7))
    axes = figure.add_axes((0.105, 0.17, 0.885, 0.80))
    _draw(axes, panel, styles, ink=_INK, muted=_MUTED, palette=_SLOTS)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "srpo"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", text)
    view_box = re.search(r'viewBox="[^"]*"', text)
    assert view_box is not None
    text = re.sub(r"<svg [^>]*>", f"<svg {view_box[0]} {_SVG_ATTRIBUTES}>", text, count=1)
    for colour, variable in ((_INK, "ink"), (_MUTED, "muted"), *((c, f"c{n}") for n, c in enumerate(_SLOTS))):
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    # A hundredth of a point is finer than any screen, and halves the page.
    return re.sub(r"(\d\.\d\d)\d+", r"\1", text)


def png(pair: tuple[Panel, Panel], styles: dict[str, int]) -> bytes:
    """Both axes side by side, on white, with a legend."""
    figure = Figure(figsize=(10.4, 3.9), dpi=130)
    both = figure.subplots(1, 2, sharey=True)
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.24, top=0.91, wspace=0.08)
    for axes, panel in zip(both, pair, strict=True):
        _draw(axes, panel, styles, ink="#1a1a1a", muted="#c4c4c4", palette=PALETTE)
    both[1].set_ylabel("")
    handles, labels = both[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="lower center", ncols=min(4, len(labels)), frameon=False, fontsize=9, handlelength=3.2
    )
    figure.suptitle(f"{pair[0].metric.title}: {pair[0].model}, {pair[0].benchmark}", fontsize=10, color="#1a1a1a")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw(axes: Any, panel: Panel, styles: dict[str, int], *, ink: str, muted: str, palette: Sequence[str]) -> None:
    for curves in panel.curves:
        number = styles[curves.method]
        colour, marker = palette[number % len(palette)], MARKERS[number % len(MARKERS)]
        line = {"color": colour, "linestyle": STYLES[number % len(STYLES)], "label": curves.method}
        thick = [curves.mean] if curves.mean else curves.runs
        if curves.mean:
            axes.fill_between(curves.mean[0], curves.low, curves.high, color=colour, alpha=0.16, linewidth=0)
            for x, y in curves.runs:
                axes.plot(x, y, color=colour, linewidth=0.8, alpha=0.55)
        for x, y in thick:
            every = max(1, len(x) // MARKED_POINTS)
            axes.plot(x, y, linewidth=2, marker=marker, markersize=4.5, markevery=every, **line)
            line["label"] = "_again"
    axes.set_xlabel(panel.x_label, color=ink, fontsize=9.5)
    axes.set_ylabel(panel.metric.unit or "norm", color=ink, fontsize=9.5)
    axes.tick_params(colors=ink, labelsize=9, color=muted, length=3)
    axes.grid(color=muted, linewidth=0.6, alpha=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.03, y=0.1)
    if panel.axis == "step":
        axes.xaxis.get_major_locator().set_params(integer=True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(muted)


def legend_mark(number: int) -> str:
    """A short line in a method's colour, style and marker, as an `<svg>` element."""
    dashes = {1: "7 3", 2: "2 3", 3: "8 2 2 2", 4: "11 3", 5: "5 2 2 2"}.get(number % len(STYLES), "none")
    shape = (
        '<circle cx="22" cy="7" r="4"/>',
        '<path d="M18 3h8v8h-8z"/>',
        '<path d="M22 2l5 9h-10z"/>',
        '<path d="M22 2l5 5-5 5-5-5z"/>',
        '<path d="M22 12l5-9h-10z"/>',
        '<path d="M20 2h4v3h3v4h-3v3h-4V9h-3V5h3z"/>',
        '<path d="M18 3l4 3 4-3 1 1-3 3 3 3-1 1-4-3-4 3-1-1 3-3-3-3z"/>',
    )[number % len(MARKERS)]
    return (
        f'<svg viewBox="0 0 44 14" aria-hidden="true" fill="var(--c{number % len(PALETTE)})">'
        f'<path d="M1 7h42" stroke="var(--c{number % len(PALETTE)})" stroke-width="2.5" stroke-dasharray="{dashes}"/>'
        f"{shape}</svg>"
    )
