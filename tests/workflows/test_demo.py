"""`python -m workflows.demo` on a fake trainer: what it prints, writes and returns."""

import json
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.patience import PROCESS
from workflows import demo
from workflows.compose_config import ConfigError, compose_config
from workflows.verl_run import RunFailed

FAKE = Path(__file__).with_name("fake_trainer.py")
NOTHING = [sys.executable, "-c", "pass"]


def run(out, ending="well", **options):
    console = Console(record=True, width=120, force_terminal=False)
    summary = demo.run_demo(
        out=out,
        command=[sys.executable, str(FAKE), ending, "3"],
        builder=options.pop("builder", NOTHING),
        console=console,
        timeout=PROCESS,
        **options,
    )
    return summary, console.export_text()


def test_summary_plot_and_where_everything_is(tmp_path):
    summary, text = run(tmp_path / "demo", seed=7)
    assert summary.points_gained == pytest.approx(50)
    assert (summary.routed_share_first, summary.routed_share_last) == pytest.approx((0.4, 0.2))
    assert summary.seconds_per_step == pytest.approx(0.25)
    assert summary.steps == 3
    assert "25.0% -> 75.0%  (+50.0 points)" in text
    assert "40.0% -> 20.0%" in text
    for name in ("metrics.jsonl", "train.log", "plot.png"):
        assert str(tmp_path / "demo" / name) in text
    saved = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert saved["held_out_after"] == 0.75
    assert saved["seed"] == 7
    assert (tmp_path / "demo" / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_teacher_prompts_are_dumped_where_the_summary_looks(tmp_path):
    files = demo.RunFiles(tmp_path)
    settings = demo._settings(files, tmp_path / "tiny", seed=0, steps=None)
    config = compose_config("srpo_tiny", [f"{key}={value}" for key, value in settings.items()])
    assert config.srpo.dump_dir == str(files.teacher_prompts)


def test_without_a_terminal_plain_lines(tmp_path):
    _, text = run(tmp_path / "demo", steps=3)
    assert "step 0/3: held-out accuracy 25.0%" in text
    assert "step 2/3: rollouts correct 20%, routed 30%, 0.2 s/step" in text
    assert "\x1b" not in text


def test_on_a_terminal_a_live_line(tmp_path):
    console = Console(force_terminal=True, width=120, record=True)
    with demo.display(console, 3) as screen:
        demo.watch(
            [sys.executable, str(FAKE), "well", "3"],
            files=(files := demo.RunFiles(tmp_path)),
            env=demo.run_environment(files, cpu=True),
            observer=screen,
            timeout=PROCESS,
        )
    assert "held-out accuracy 75.0%" in console.export_text()


def test_a_second_run_does_not_touch_the_first(tmp_path):
    run(tmp_path / "demo")
    before = (tmp_path / "demo" / "summary.json").read_text()
    run(tmp_path / "demo", seed=1)
    assert (tmp_path / "demo-2" / "summary.json").exists()
    assert (tmp_path / "demo" / "summary.json").read_text() == before


def test_a_builder_that_fails(tmp_path):
    with pytest.raises(RunFailed, match="RuntimeError: no tokens"):
        run(tmp_path / "demo", builder=[sys.executable, "-c", "raise RuntimeError('no tokens')"])


def test_failures_are_exit_code_1_and_an_explanation(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "verl_command", lambda *_: [sys.executable, str(FAKE), "raises", "1"])
    monkeypatch.setattr(demo, "builder_command", lambda *_, **__: NOTHING)
    monkeypatch.setattr(demo, "_stop_like_ctrl_c", lambda *_: None)
    result = CliRunner().invoke(demo.app, ["--out", str(tmp_path / "demo")])
    assert result.exit_code == 1
    assert "KeyError: 'reward_model'" in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "demo" / "summary.json").exists()


def test_an_unknown_config_names_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match="srpo_tiny"):
        demo.run_demo(out=tmp_path / "demo", config_name="srpo_tyni")
