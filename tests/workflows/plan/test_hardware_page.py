"""The table of docs/hardware.md is what `srpo plan` gives."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from workflows.plan.command import app

PAGE = Path(__file__).parents[3] / "docs" / "hardware.md"
MOMENTS = ("old log-probs", "teacher", "backward", "generation")
GIB = 2**30


def rows() -> list[tuple[str, list[float]]]:
    """The command of each row and its numbers."""
    found = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 7 and cells[1].startswith("`srpo"):
            found.append((cells[1].strip("`"), [float(cell) for cell in cells[2:]]))
    return found


def test_the_table_is_there():
    assert len(rows()) == 4


@pytest.mark.parametrize(("command", "numbers"), rows(), ids=[command for command, _ in rows()])
def test_a_row_is_what_the_plan_says(command, numbers):
    result = CliRunner().invoke(app, [*command.split(), "--json"])
    plan = json.loads(result.stdout)
    assert plan["misfits"] == []
    memory = [plan["moments"][name]["total"] / GIB for name in MOMENTS]
    assert [round(value, 1) for value in memory] == numbers[:-1]
    assert round(plan["seconds"]["step"]) == numbers[-1]
