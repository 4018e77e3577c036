"""Stages one after another: limits, what cannot run, what breaks, and a machine without a GPU."""

import json
import signal
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from workflows.doctor.command import app as doctor
from workflows.gpu_check import tests as test_stages
from workflows.gpu_check.command import app
from workflows.gpu_check.planned import card
from workflows.gpu_check.result import Check, Outcome, Stage
from workflows.gpu_check.run import LIMITS, PAGE, RESULTS, NoGPUError, run_checks
from workflows.gpu_check.settings import NotRunError, Settings, need
from workflows.plan.gpus import GPUS, gpu_called

SUITE = """
import time
import pytest

def test_first():
    pass

@pytest.mark.parametrize("n", range(3))
def test_long(n):
    time.sleep(1000)
"""


@pytest.fixture
def without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def stages(monkeypatch):
    module = types.ModuleType("stages_for_tests")

    def core(settings):
        """The first."""
        return Stage(checks=[Check("exact", Outcome.PASSED)])

    def worker(settings):
        """The second."""
        raise NotRunError("verl is not installed")

    def stack(settings):
        """The third."""
        raise OSError("no such device")

    module.core, module.worker, module.stack = core, worker, stack
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return dict.fromkeys(("core", "worker", "stack"), module.__name__) | {"demo": "no_such_module_here"}


def test_each_stage_stands_alone_and_the_results_are_written(stages, tmp_path, without_gpu):
    said = []
    settings = Settings("cpu", tmp_path, limits={"core": 7.0})
    found = run_checks(settings, tuple(stages), stages=stages, say=said.append)
    assert [stage.outcome.value for stage in found.stages] == ["passed", "not run", "failed", "not run"]
    core, worker, stack, demo = found.stages
    assert (core.title, core.limit, worker.limit) == ("The first.", 7.0, LIMITS["worker"])
    assert worker.why_not == "verl is not installed"
    assert "OSError: no such device (at" in stack.checks[0].reason
    assert "no_such_module_here" in demo.why_not
    assert found.exit_status == 1
    kept = json.loads((tmp_path / RESULTS).read_text())
    assert (kept["rehearsal"], kept["exit_status"], len(kept["stages"])) == (True, 1, 4)
    assert kept["machine"]["versions"]["torch"] == torch.__version__
    assert "A rehearsal" in (tmp_path / PAGE).read_text()
    assert any("worker: not run" in line and "verl is not installed" in line for line in said)


@pytest.mark.parametrize("command", [(app, []), (doctor, ["--gpu"])], ids=["gpu-check", "doctor"])
def test_without_a_gpu_one_sentence_and_an_error(command, without_gpu, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(command[0], command[1])
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    assert "sees no GPU here" in result.output
    assert "--platform cpu rehearses" in result.output
    assert list(Path().iterdir()) == []


def test_options_that_are_wrong_are_named(tmp_path, without_gpu):
    run = CliRunner().invoke
    for words, said in (
        (["--stages", "cores"], "no stage cores"),
        (["--limits", "core=soon"], "core=soon"),
        (["--methods", "ppo"], "ppo"),
    ):
        result = run(app, [*words, "--platform", "cpu", "--out", str(tmp_path)])
        assert result.exit_code == 2
        assert said in result.output
    with pytest.raises(NoGPUError):
        run_checks(Settings("gpu", tmp_path))


def test_what_is_not_installed_is_named():
    need(("torch",), "unused")
    with pytest.raises(NotRunError, match="not installed here: no_such_module; make one"):
        need(("torch", "no_such_module"), "make one")


def test_a_stage_over_its_limit_is_ended_and_keeps_what_came_before(tmp_path, monkeypatch):
    """The clock stands until the first test is through, then the limit is over; interrupts are ignored, as by `&`."""
    (tmp_path / "tests" / "gpu").mkdir(parents=True)
    (tmp_path / "tests" / "gpu" / "test_some.py").write_text(SUITE)
    monkeypatch.setattr(test_stages, "clone", lambda: tmp_path)
    log = tmp_path / "core.log"
    monkeypatch.setattr(test_stages, "clock", lambda: 10.0 if log.is_file() and "." in log.read_text() else 0.0)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        stage = test_stages.core(Settings("cpu", tmp_path, limits={"core": 5.0}))
    finally:
        signal.signal(signal.SIGINT, before)
    assert [check.outcome for check in stage.checks if check.name.endswith("first")] == [Outcome.PASSED]
    assert stage.reason.startswith("not done after 5 s")
    assert stage.outcome is Outcome.FAILED


def test_a_card_of_the_table_and_another():
    assert card("NVIDIA H100 80GB HBM3", 85e9).name == "H100"
    assert card("NVIDIA A100-SXM4-40GB", 42e9) == replace(GPUS["A100-40G"], memory_gib=42e9 / 2**30)
    assert card("NVIDIA GeForce RTX 4090", 25e9).tflops == GPUS["RTX4090"].tflops
    assert (card("NVIDIA A10", 24e9).tflops, card("NVIDIA A10G", 24e9).name) == (125, "NVIDIA A10G")
    for other in ("NVIDIA GH200 480GB", "NVIDIA H100 80GB HBM3 MIG 3g.40gb"):
        assert gpu_called(other, 40e9) is None
    other = card("NVIDIA Something", 24 * 2**30)
    assert (other.name, other.memory_gib) == ("NVIDIA Something", 24.0)
