"""`srpo train` around a fake trainer: folders, starts, endings, environment; and the checks before it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from rich.console import Console
from typer.testing import CliRunner

from srpo_verl.base.lease import FolderTakenError, take
from srpo_verl.training.durable import checkpoint_store
from tests.patience import PROCESS
from workflows.cli import app
from workflows.compose_config import ConfigError, compose_config
from workflows.doctor.check import Status
from workflows.plan.gpus import GPUS
from workflows.run_reader import DUMPS, read_run
from workflows.train import checks, run
from workflows.train.folder import claim_run, newest_checkpoint
from workflows.train.run import RunFailed, RunStopped, environment, train

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def start(tmp_path, monkeypatch):
    """start(ending, steps, name, ...): one start of a run in tmp_path/run."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))

    def one(ending="well", steps=2, name="20260101-000000", **options):
        out = tmp_path / "run"
        command = [sys.executable, "-m", "tests.workflows.train.fake_run", str(out), ending, str(steps), name]
        with (tmp_path / "shown.txt").open("a") as shown:
            console = Console(file=shown, width=200)
            return train(
                "srpo_tiny", out=out, checks=False, console=console, command=command, timeout=PROCESS, **options
            )

    return one


def test_a_run_that_ends_well(start, tmp_path):
    summary = start()
    assert (summary.steps, summary.held_out_before, summary.held_out_after) == (2, 0.25, 0.75)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["points_gained"] == 50
    shown = (tmp_path / "shown.txt").read_text()
    assert "step 2/25" in shown
    assert "srpo_run/20260101-000000/metrics.jsonl" in shown
    assert "loading model and engine" in (tmp_path / "shown.txt").read_text()


def test_a_later_start_keeps_the_metrics_and_the_log_of_the_first(start, tmp_path):
    with pytest.raises(RunFailed, match=r"global_step_3 is there.*--resume"):
        start("raises", 3)
    summary = start("well", 4, name="20260102-000000", resume=True)
    assert summary.steps == 4
    run = read_run(tmp_path / "run")
    assert (run.starts, [record.step for record in run.records]) == (2, [0, 1, 2, 3, 4])
    assert "KeyError" in (tmp_path / "run" / "train.1.log").read_text()
    assert "KeyError" not in (tmp_path / "run" / "train.log").read_text()
    assert re.search(r"going on from .*global_step_3", (tmp_path / "shown.txt").read_text())


def test_a_run_is_neither_overwritten_nor_resumed_by_accident(start, tmp_path):
    start()
    with pytest.raises(FileExistsError, match="go on with it by --resume, or begin anew by --fresh"):
        start()
    start(steps=1, fresh=True)
    (before,) = tmp_path.glob("run.before-*")
    assert read_run(before).records[-1].step == 2
    assert read_run(tmp_path / "run").records[-1].step == 1


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"fresh": True}])
def test_a_folder_that_another_run_has_is_refused_and_left_as_it_is(how, start, tmp_path):
    with take(tmp_path / "run"):
        (tmp_path / "run" / "train.log").write_text("of the other")
        with pytest.raises(FolderTakenError, match=r"belongs to run .*\(srpo attach .*\(srpo stop .*another folder"):
            start(**how)
    assert [path.name for path in tmp_path.iterdir()].count("run") == 1
    assert (tmp_path / "run" / "train.log").read_text() == "of the other"


def test_a_start_that_was_killed_before_it_wrote_anything_can_be_resumed(start, tmp_path):
    take(tmp_path / "run").release("killed")
    assert start(resume=True).steps == 2


def test_the_run_gets_the_folder_from_its_command_and_says_that_it_was_stopped(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    code = (
        "import os, pathlib, sys; from srpo_verl.base.lease import TOKEN, take\n"
        "take(pathlib.Path(sys.argv[1]), token=os.environ[TOKEN]).release('stopped: SIGTERM: stopped after step 3.')\n"
        "sys.exit(1)"
    )
    out = tmp_path / "run"
    command = [sys.executable, "-c", code, str(out)]
    with pytest.raises(RunStopped, match=r"SIGTERM: stopped after step 3\."):
        train("srpo_tiny", out=out, checks=False, console=Console(quiet=True), command=command, timeout=PROCESS)


@pytest.fixture
def dumps(tmp_path, monkeypatch):
    """dumps(config, *overrides): where a run in tmp_path/run would dump, as the command says that it starts."""

    def of(config, *overrides):
        (tmp_path / "mine.yaml").write_text(config)
        seen = []
        monkeypatch.setattr(
            run, "verl_command", lambda name, settings, words: seen.append((settings, words)) or ["true"]
        )
        quiet = Console(quiet=True)
        train(
            f"{tmp_path}/mine",
            overrides,
            out=tmp_path / "run",
            checks=False,
            console=quiet,
            fresh=True,
            timeout=PROCESS,
        )
        (settings, words), *_ = seen
        started = compose_config(f"{tmp_path}/mine", [*(f"{key}={value}" for key, value in settings.items()), *words])
        return {key: OmegaConf.select(started, key) for key in DUMPS}

    return of


def test_a_run_dumps_into_its_own_folder(dumps, tmp_path):
    """Two runs of the tiny config share `tiny.folder`, and of any config the working folder."""
    tiny = dumps("defaults: [srpo_tiny, _self_]", f"tiny.folder={tmp_path}/tiny")
    out = tmp_path / "run"
    assert tiny == {
        "trainer.rollout_data_dir": f"{out}/rollouts",
        "trainer.validation_data_dir": None,
        "srpo.dump_dir": f"{out}/teacher_prompts",
        "srpo.inspect_dir": None,
    }
    mine = "defaults: [srpo, _self_]\ntrainer: {rollout_data_dir: r, validation_data_dir: /v}\nsrpo: {inspect_dir: i}"
    assert dumps(mine, "srpo.dump_dir=typed") == {
        "trainer.rollout_data_dir": f"{out}/rollouts",
        "trainer.validation_data_dir": "/v",
        "srpo.dump_dir": "typed",
        "srpo.inspect_dir": f"{out}/inspect",
    }
    assert dumps(mine, "trainer.rollout_data_dir=null")["trainer.rollout_data_dir"] is None


def test_folders_that_are_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        claim_run(tmp_path / "nothing", resume=True, fresh=False)
    with pytest.raises(ValueError, match="give one of them"):
        claim_run(tmp_path, resume=True, fresh=True)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds other files"):
        claim_run(tmp_path, resume=False, fresh=False)
    with pytest.raises(FileExistsError, match="is a file"):
        claim_run(tmp_path / "notes.txt", resume=False, fresh=False)


def test_the_newest_checkpoint_is_the_last_complete_one(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    for step in (2, 9, 10):
        checkpoint_store.begin(tmp_path / f"global_step_{step}", step)
        if step < 10:
            checkpoint_store.finish(tmp_path / f"global_step_{step}", step=step, run="run")
    assert newest_checkpoint(tmp_path) == tmp_path / "global_step_9"


def test_the_childs_environment(tmp_path):
    files, _ = claim_run(tmp_path / "run", resume=False, fresh=False)
    plain = environment(files, cpu=True, base={"VERL_FILE_LOGGER_PATH": "/elsewhere", "HOME": "/root"})
    assert plain["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert not {"VERL_FILE_LOGGER_PATH", "TENSORBOARD_DIR", "HF_HUB_OFFLINE"} & plain.keys()
    assert plain["RAY_ADDRESS"] == "local"
    assert "RAY_ADDRESS" not in environment(files, cpu=False, nodes=2, base={})
    given = environment(files, cpu=False, base={"RAY_ADDRESS": "ray://head:10001", "HF_HUB_OFFLINE": "1"})
    assert (given["RAY_ADDRESS"], given["HF_HUB_OFFLINE"]) == ("ray://head:10001", "1")
    assert "VLLM_CPU_KVCACHE_SPACE" not in given


def test_a_config_that_cannot_be_composed_touches_nothing(tmp_path):
    with pytest.raises(ConfigError, match="no config"):
        train("srpo_tinny", out=tmp_path / "run")
    result = CliRunner().invoke(app, ["train", "srpo_tiny", "no.such=1", "--out", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert result.output.startswith("checking the config and this machine, usually under a minute; the run's log")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_checks_stop_a_run_before_it_starts(tmp_path):
    """Missing data and model, found by the config's own checks through `srpo doctor`."""
    result = CliRunner().invoke(
        app, ["train", "srpo_tiny", f"tiny.folder={tmp_path}/nothing", "--out", str(tmp_path / "run")]
    )
    assert result.exit_code == 1, result.output
    assert "train.parquet: there is no such file" in result.output
    assert "Nothing was started" in result.output
    assert not (tmp_path / "run").exists()


def test_an_estimate_that_was_never_measured_is_a_warning(monkeypatch):
    """Formulas for GPUs were not compared with a run: they do not stop one. Those for CPUs were, and do."""
    shape = ["actor_rollout_ref.model.path=Qwen/Qwen3-32B"]
    monkeypatch.setattr(checks, "gpu_here", lambda: GPUS["H20"])
    monkeypatch.setattr(checks, "has_flash_attn", lambda: True)
    found = list(checks.check_plan(compose_config("srpo", shape)))
    assert {finding.status for finding in found} == {Status.WARN}
    assert any("loss: " in finding.found for finding in found)
    assert "never measured on a GPU" in found[-1].found
    assert "tensor_model_parallel_size" in found[-1].mend
    found = list(checks.check_plan(compose_config("srpo", [*shape, "platform=cpu"])))
    assert {finding.status for finding in found} == {Status.FAIL}
