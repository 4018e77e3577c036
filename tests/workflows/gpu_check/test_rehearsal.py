"""The stages on a CPU, as a person runs them. The real stack is in `make nightly`."""

import json
import subprocess
import sys

import pytest

from tests.requirements_module import ROOT
from workflows.gpu_check.run import PAGE, RESULTS


def rehearse(folder, *options):
    command = [sys.executable, "-m", "workflows.gpu_check", "--platform", "cpu", "--out", str(folder), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "This was a rehearsal on a CPU" in done.stdout, done.stderr
    return done.returncode, json.loads((folder / RESULTS).read_text()), (folder / PAGE).read_text()


@pytest.mark.slow
def test_the_loss_against_float64(tmp_path):
    status, results, page = rehearse(tmp_path, "--stages", "core", "--select", "float64 or waits")
    (core,) = results["stages"]
    assert (status, core["outcome"], results["rehearsal"]) == (0, "passed", True)
    outcomes = {check["name"]: check for check in core["checks"]}
    exact = [check["outcome"] for name, check in outcomes.items() if "against_float64" in name]
    assert exact.count("passed") >= 2
    assert "failed" not in exact
    (waits,) = (check for name, check in outcomes.items() if "waits" in name)
    assert (waits["outcome"], waits["reason"]) == ("skipped", "no CUDA GPU is visible")
    assert "A rehearsal on a CPU" in page
    assert "off by" in page


@pytest.mark.stack
@pytest.mark.nightly
@pytest.mark.needs_cpu_set
@pytest.mark.timeout(3600)
def test_all_stages(tmp_path):
    status, results, _ = rehearse(
        tmp_path, "--select", "float64 or (ema_follows and teacher) or planned", "--model", "tiny",
        "--methods", "srpo", "--steps", "4", "--demo-steps", "2",
    )  # fmt: skip
    assert [(stage["name"], stage["outcome"]) for stage in results["stages"]] == [
        (name, "passed") for name in ("core", "worker", "stack", "demo")
    ]
    assert status == 0
