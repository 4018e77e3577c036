"""The checks of a run of pytest, from its `--junitxml`."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from workflows.gpu_check.result import Check, Outcome, Peak

# `record_property(PEAK, json.dumps([what, planned, measured]))` in a test; any other property is a figure.
PEAK = "peak"
LONGEST_REASON = 600


def read_junit(path: Path) -> tuple[list[Check], list[Peak]]:
    """Every test as a check, and the peaks that tests recorded. Raises ValueError if the file is cut off."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is no whole JUnit file: {error}") from error
    checks, peaks = [], []
    for case in root.iter("testcase"):
        figures = {}
        for entry in case.iter("property"):
            name, value = entry.get("name", ""), entry.get("value", "")
            if name == PEAK:
                peaks.append(Peak(*json.loads(value)))
            else:
                figures[name] = value
        outcome, reason = _outcome(case)
        said = (case.findtext("system-out") or "").strip().splitlines()
        checks.append(
            Check(
                name=f"{case.get('classname', '').rpartition('.')[2]}: {case.get('name')}".replace("test_", ""),
                outcome=outcome,
                seconds=float(case.get("time") or 0),
                reason=reason,
                figures=figures,
                # What pytest's own capture draws around the output of the phases of a test.
                said=[line for line in said if line.strip() and not line.startswith("----")],
            )
        )
    return checks, peaks


def _outcome(case: ElementTree.Element) -> tuple[Outcome, str]:
    for tag in ("failure", "error"):
        if (found := case.find(tag)) is not None:
            text = found.get("message") or found.text or tag
            return Outcome.FAILED, _short(text)
    if (found := case.find("skipped")) is not None:
        return Outcome.SKIPPED, _short(found.get("message") or found.text or "no reason given")
    return Outcome.PASSED, ""


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 4] + " ..."
