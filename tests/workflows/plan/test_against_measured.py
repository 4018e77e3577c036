"""The plan of each recorded run on a CPU against the memory that it took (`benchmarks/plan_memory.py`)."""

import pytest

from benchmarks.plan_memory import comparisons

# The process constants come from this run, so it says nothing about the plan.
CALIBRATED_WITH = "tiny"
RECORDED = {item.name: item for item in comparisons()}


def test_runs_of_several_sizes_are_recorded():
    assert {"tiny", "middle", "smollm2"} <= set(RECORDED)


@pytest.mark.parametrize("name", [name for name in RECORDED if name != CALIBRATED_WITH])
@pytest.mark.parametrize("part", ["worker", "engine", "total"])
def test_planned_memory_is_within_a_quarter_of_what_was_measured(name, part):
    planned, measured = getattr(RECORDED[name], part)
    assert planned == pytest.approx(measured, rel=0.25)


@pytest.mark.parametrize("name", RECORDED)
def test_the_worst_case_is_not_below_the_expected_one(name):
    assert RECORDED[name].worst_total >= RECORDED[name].total[0]
