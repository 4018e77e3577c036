"""The HTML page and the Markdown file, from what was found about the runs."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from workflows.report.curves import Panel
from workflows.report.drawing import legend_mark
from workflows.report.rollouts import ReadRollout
from workflows.report.table import Table


@dataclass(frozen=True)
class Content:
    """All that is shown, before it is laid out. `results` and `speeds` are by model."""

    title: str
    lead: str
    notes: list[str]
    overview: Table
    paper: Table
    results: list[tuple[str, list[Table]]]
    speeds: list[tuple[str, Table]]
    panels: list[tuple[Panel, Panel]]
    styles: dict[str, int]
    final: list[Table]
    settings: Table
    rollouts: list[ReadRollout]
    rollout_notes: list[str]
    sample_seed: int


@dataclass(frozen=True)
class _Pair:
    title: str
    panels: list[tuple[str, str]]


def html_page(content: Content, drawings: Sequence[tuple[str, str]]) -> str:
    """One self-contained page; `drawings` are the SVGs of `content.panels`.

    All text of runs and models is escaped, and nothing but our own script may run.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["slug"] = slug
    script = _asset("page.js")
    return environment.get_template("page.html.j2").render(
        {name: getattr(content, name) for name in Content.__dataclass_fields__},
        css=Markup(_asset("page.css")),
        script=Markup(script),
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        sections=_sections(content),
        curves=_drawn(content, drawings),
        legends={
            _heading(step): [
                (curves.method, legend_mark(content.styles[curves.method]))
                for curves in max(
                    (pair[0].curves for pair in content.panels if _heading(pair[0]) == _heading(step)), key=len
                )
            ]
            for step, _ in content.panels
        },
        filters=_filters(content.rollouts),
        made=time.strftime("%Y-%m-%d %H:%M %Z"),
    )


def markdown_page(content: Content, plots: Mapping[str, str]) -> str:
    """The same tables and pictures for a repository or a notebook; `plots` gives each picture's file and its text."""
    parts = [f"# {content.title}", content.lead, content.overview.markdown()]
    if content.notes:
        parts.append("## What is missing\n\n" + "\n".join(f"- {note}" for note in content.notes))
    if not content.paper.empty:
        parts.append(content.paper.markdown())
    for model, tables in content.results:
        parts += [f"## {model}", *(table.markdown() for table in tables)]
    for model, table in content.speeds:
        parts += [f"## {model}: speed", table.markdown()]
    if plots:
        parts += ["## Curves", *(f"![{_alt(text)}]({file})" for file, text in plots.items())]
    parts.append("## Comparison of runs")
    parts += [table.markdown() for table in (*content.final, content.settings) if not table.empty]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def slug(text: str) -> str:
    """`text` as a part of a file's name or an element's id."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def _sections(content: Content) -> list[tuple[str, str]]:
    return [
        (name, title)
        for name, title, there in (
            ("runs", "Runs", True),
            ("accuracy", "Accuracy", content.results),
            ("speed", "Speed", content.speeds),
            ("curves", "Curves", content.panels),
            ("comparison", "Comparison", True),
            ("rollouts", "Rollouts", True),
        )
        if there
    ]


def _heading(panel: Panel) -> str:
    return f"{panel.model}, {panel.benchmark}"


def _drawn(content: Content, drawings: Sequence[tuple[str, str]]) -> list[tuple[str, list[_Pair]]]:
    sections: dict[str, list[_Pair]] = {}
    for pair, drawn in zip(content.panels, drawings, strict=True):
        shown = [(panel.alt(), drawing) for panel, drawing in zip(pair, drawn, strict=True) if panel.curves]
        sections.setdefault(_heading(pair[0]), []).append(_Pair(pair[0].metric.title, shown))
    return list(sections.items())


def _filters(rollouts: Sequence[ReadRollout]) -> list[tuple[str, str, list[str]]]:
    """(attribute, label, values) of each property with more than one value."""
    found = [
        ("run", "Run", sorted({rollout.run for rollout in rollouts})),
        ("step", "Step", [str(step) for step in sorted({rollout.step for rollout in rollouts})]),
        ("route", "Route", sorted({rollout.route for rollout in rollouts})),
        ("score", "Score", sorted({rollout.shown_score for rollout in rollouts})),
    ]
    return [(key, name, values) for key, name, values in found if len(values) > 1]


def _alt(text: str) -> str:
    return text.replace("[", "(").replace("]", ")").replace("\n", " ")


def _asset(name: str) -> str:
    file: Path = resources.files("workflows.report") / name  # type: ignore[assignment]
    return file.read_text(encoding="utf-8")
