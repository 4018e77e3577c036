"""The comparison of two algorithms of one name: its table is the page's, and what it shows."""

import re
from pathlib import Path

import pytest

from laboratory.which_srpo import CHANGES, measure, table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "family.md"


@pytest.mark.slow
def test_the_table_of_the_page_is_what_the_command_prints():
    printed = table().splitlines()
    page = PAGE.read_text()
    start = page.index(printed[0])
    shown = page[start:].splitlines()[: len(printed)]
    for one, other in zip(printed, shown, strict=True):
        numbers = [[float(word) for word in re.findall(r"-?\d+\.\d+(?= \|)", line)] for line in (one, other)]
        assert numbers[0] == pytest.approx(numbers[1], abs=2e-3)
        assert re.sub(r"-?\d+\.\d+(?= \|)", "#", one) == re.sub(r"-?\d+\.\d+(?= \|)", "#", other)


def test_who_learns_from_a_teacher_is_not_the_same():
    """11 wrong answers of two mixed groups; by the sign also all 8 right ones of one group; with a reference all."""
    overrides, counts = (), []
    for added in list(CHANGES.values())[:3]:
        overrides += added
        counts.append(measure(overrides).distilled)
    assert counts == [11, 19, 27]
