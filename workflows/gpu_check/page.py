"""The results as a Markdown page."""

from __future__ import annotations

from workflows.gpu_check.result import NEAR, Check, Outcome, Report, Stage

GIB = 2**30
REHEARSAL = (
    "**A rehearsal on a CPU.** It shows that the stages run; it says nothing about a GPU, and no figure of it is one."
)


def markdown_page(report: Report) -> str:
    """Machine, a line per stage, then each stage with its checks, figures and peaks."""
    machine = report.machine
    where = machine.get("gpu") or machine.get("cpu") or "an unknown machine"
    lines = [f"# GPU check: {where}", ""]
    if report.rehearsal:
        lines += [REHEARSAL, ""]
    lines += ["| | |", "|---|---|", f"| started | {report.started} |"]
    lines += [f"| {name} | {_cell(_text(value))} |" for name, value in machine.items()]
    lines += ["", "| stage | | passed | failed | skipped | seconds |", "|---|---|---|---|---|---|"]
    for stage in report.stages:
        counts = " | ".join(str(stage.count(o)) for o in (Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED))
        lines.append(f"| {stage.name} | **{stage.outcome}** | {counts} | {stage.seconds:.0f} of {stage.limit:.0f} |")
    for stage in report.stages:
        lines += ["", *_stage(stage)]
    return "\n".join(lines) + "\n"


def _stage(stage: Stage) -> list[str]:
    lines = [f"## {stage.name}: {stage.outcome}", "", stage.title]
    if stage.outcome is Outcome.NOT_RUN:
        lines += ["", f"Not run: {_cell(stage.why_not)}"]
    elif stage.reason:
        lines += ["", f"Ended early: {_cell(stage.reason)}"]
    if stage.peaks:
        lines += ["", "| peak of memory, GiB | `srpo plan` | measured | off | |", "|---|---|---|---|---|"]
        for peak in stage.peaks:
            verdict = f"within {NEAR:.0%}" if peak.near else "**not near**"
            sizes = f"{peak.planned / GIB:.2f} | {peak.measured / GIB:.2f}"
            lines.append(f"| {_cell(peak.what)} | {sizes} | {peak.off:+.0%} | {verdict} |")
    if stage.checks:
        lines += ["", "| check | | seconds | |", "|---|---|---|---|"]
        lines += [_check(check) for check in stage.checks]
    return lines


def _check(check: Check) -> str:
    found = [check.reason] if check.reason else []
    found += [f"{name} {value}" for name, value in check.figures.items()]
    found += check.said
    verdict = f"**{check.outcome}**" if check.outcome is Outcome.FAILED else str(check.outcome)
    return f"| {_cell(check.name)} | {verdict} | {check.seconds:.1f} | {'<br>'.join(map(_cell, found))} |"


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return str(value)


def _cell(text: str) -> str:
    """As plain text in one cell of a table."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return " ".join(escaped.split())
