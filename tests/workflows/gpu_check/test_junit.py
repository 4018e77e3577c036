"""The checks of a run of pytest, from a report that pytest wrote."""

import subprocess
import sys

import pytest

from workflows.gpu_check.junit import read_junit
from workflows.gpu_check.result import Outcome, Peak

TESTS = """
import json
import pytest

def test_well(record_property):
    record_property("one_pass", "3.1 ms")
    record_property("peak", json.dumps(["update", 11.0, 10.0]))
    print("off by 2e-8")

def test_ill():
    raise ValueError("0.3 > 0.1")

def test_not_here():
    pytest.skip("needs 2 GPUs")

@pytest.fixture
def broken():
    raise OSError("no such device")

def test_with_it(broken):
    pass
"""


@pytest.fixture(scope="module")
def junit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("junit")
    (folder / "test_some.py").write_text(TESTS)
    options = ["-q", "-p", "no:cacheprovider", "--junitxml", "found.xml", "-o", "junit_logging=system-out"]
    subprocess.run([sys.executable, "-m", "pytest", *options], cwd=folder, capture_output=True, check=False)
    return folder / "found.xml"


def test_outcomes_reasons_figures_and_peaks(junit):
    checks, peaks = read_junit(junit)
    well, ill, absent, broken = checks
    assert (well.name, well.outcome, well.reason) == ("some: well", Outcome.PASSED, "")
    assert (well.figures, well.said) == ({"one_pass": "3.1 ms"}, ["off by 2e-8"])
    assert peaks == [Peak("update", 11.0, 10.0)]
    assert (ill.outcome, ill.reason) == (Outcome.FAILED, "ValueError: 0.3 > 0.1")
    assert absent.outcome is Outcome.SKIPPED
    assert "needs 2 GPUs" in absent.reason
    assert broken.outcome is Outcome.FAILED
    assert "OSError: no such device" in broken.reason


def test_a_report_that_was_cut_off_is_an_error(junit, tmp_path):
    cut = tmp_path / "cut.xml"
    cut.write_text(junit.read_text()[:-40])
    with pytest.raises(ValueError, match="no whole JUnit file"):
        read_junit(cut)
