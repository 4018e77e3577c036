"""Nothing moves that should not: losses, gradients, metrics and teacher prompts equal the record, bit for bit.

With another torch or on another processor floats are compared to a tolerance instead (`values.TOLERANCES`). After an
intended change: `python -m tests.golden.record`, and read what it prints.
"""

from __future__ import annotations

import pytest

from tests.golden import record, values
from tests.golden.cases import CASES

pytestmark = pytest.mark.needs_cpu_set


@pytest.fixture(scope="module")
def golden():
    return record.read()


@pytest.fixture(scope="module")
def exact(golden):
    return all(golden["header"][name] == value for name, value in record.machine().items())


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return record.compute(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("case", CASES)
def test_two_steps(golden, found, exact, case):
    lines = values.compare(golden["steps"][case], found["steps"][case], exact=exact)
    assert not lines, f"{len(lines)} values of {case} differ from commit {golden['header']['commit']}:\n" + "\n".join(
        lines
    )


@pytest.mark.parametrize("kind", ["chatml", "plain_markers"])
def test_teacher_prompts(golden, found, kind):
    assert values.compare(golden["text"][kind], found["text"][kind], exact=True) == []


def test_nothing_golden_is_left_out(golden, found):
    assert [list(golden[part]) for part in ("steps", "text")] == [list(found[part]) for part in ("steps", "text")]
