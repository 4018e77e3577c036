"""The report of good runs, of damaged ones, and of none."""

import errno
import json
import os
import re

import pytest
from typer.testing import CliRunner

from tests.workflows.report.run_folders import NAUGHTY, config, line, write_rollouts, write_run, write_start
from workflows.cli import app
from workflows.report import build_report
from workflows.report.reported_run import load_runs
from workflows.report.rollouts import sample_rollouts


def test_page_markdown_and_plots_of_a_small_grid(tmp_path):
    for method in ("grpo", "srpo"):
        for seed in (0, 1):
            write_run(tmp_path / "runs" / f"{method}-{seed}", method, seed=seed, steps=10, rollouts=seed == 0)
    report = build_report([tmp_path / "runs"], tmp_path / "out", title="Chemistry <small>", budgets=[300.0, 3600.0])
    page, markdown = report.html.read_text(), report.markdown.read_text()
    assert "<title>Chemistry &lt;small&gt;</title>" in page
    for text in ("Best avg@16 (%)", "Seconds per training step", "Share routed", "Where the runs ended", "SDPO"):
        assert text in page
    assert "| SRPO | 2 |" in markdown
    names = {path.name for path in report.plots}
    assert {f"qwen-qwen3-8b-chemistry-{metric}.png" for metric in ("held-out", "entropy", "routed-share")} <= names
    for path in report.plots:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert f"](plots/{path.name})" in markdown
    (table,) = report.results["Qwen/Qwen3-8B"]
    assert not table.empty


def test_what_a_model_wrote_cannot_act_in_the_page(tmp_path):
    write_run(tmp_path / "run", "srpo", steps=2, rollouts=True)
    page = build_report([tmp_path / "run"], tmp_path / "out", title=NAUGHTY).html.read_text()
    assert "owned" in page
    assert page.count("<script>") == 1
    assert "<img" not in page
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; ")
    assert "script-src &#39;sha256-" in policy or "script-src 'sha256-" in policy
    # Nothing is fetched: no address is followed except names of XML namespaces.
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]+"', page)


def test_ids_are_unique_and_links_lead_somewhere(tmp_path):
    write_run(tmp_path / "run", "srpo", steps=6, sources=("a", "b"), rollouts=True)
    page = build_report([tmp_path / "run"], tmp_path / "out").html.read_text()
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)


def test_damaged_runs_are_described_and_do_not_stop_the_report(tmp_path):
    good = write_run(tmp_path / "runs" / "good", "srpo", steps=4)
    with (good / "srpo_run" / "20260101-000000" / "metrics.jsonl").open("a") as file:
        file.write('not json\n{"step": 5, "da')
    settings = config("grpo", seed=0, steps=9)
    silent = write_start(tmp_path / "runs" / "silent", settings, [])
    (silent / "metrics.jsonl").unlink()
    write_start(tmp_path / "runs" / "empty", settings, [])
    write_start(tmp_path / "runs" / "blind", settings, [line(1, timing_s__step=3.0, actor__entropy=None)])
    write_start(tmp_path / "runs" / "untimed", settings, [line(1, **{"val-core/x/acc/mean@4": 0.5})])
    write_start(tmp_path / "runs" / "nan", settings, [line(1, timing_s__step=float("nan"), actor__grad_norm=0.1)])
    broken = write_start(tmp_path / "runs" / "broken", settings, [])
    (broken / "config.yaml").write_text("a: [")
    report = build_report([tmp_path / "runs"], tmp_path / "out")
    notes = "\n".join(report.notes)
    for said in (
        "good: metrics.jsonl: lines that cannot be read and are left out: 6",
        "good: metrics.jsonl: its last line is half written",
        "silent: there are no metrics",
        "empty: nothing is logged",
        "actor/entropy are not finite",
        "it was never validated",
        "nan: metrics.jsonl: 1 values of timing_s/step are not finite",
        "no step has timing_s/step",
        "broken is left out",
        "no rollouts were dumped",
    ):
        assert said in notes, notes
    page = report.html.read_text()
    assert "half written" in page
    assert "unfinished: 1 of 9 steps" in page
    assert "nothing logged" in page


def test_rollouts_are_named_by_route(tmp_path):
    runs, _ = load_runs([write_run(tmp_path / "run", "srpo", steps=12, rollouts=True)])
    everything, _ = sample_rollouts(runs, count=100, seed=0)
    routes = [(rollout.step, rollout.route) for rollout in everything]
    assert len(routes) == 16
    assert routes.count((1, "SDPO")) == routes.count((11, "SDPO")) == 3
    assert routes.count((1, "GRPO")) == routes.count((11, "GRPO")) == 5
    for rollout in everything:
        assert bool(rollout.teacher_prompt) == (rollout.route == "SDPO")
        assert rollout.question
        assert rollout.response
    few, _ = sample_rollouts(runs, count=4, seed=3)
    assert [(r.step, r.route) for r in few] == [(1, "GRPO"), (1, "SDPO"), (11, "GRPO"), (11, "SDPO")]
    assert sample_rollouts(runs, count=4, seed=3)[0] == few
    assert any(sample_rollouts(runs, count=4, seed=other)[0] != few for other in range(4, 9))


@pytest.mark.parametrize(
    ("prompts", "everything", "routes"),
    [(True, False, {"SDPO"}), (False, True, {"route not recorded"})],
)
def test_one_dump_without_the_other(tmp_path, prompts, everything, routes):
    run = write_run(tmp_path / "run", "srpo", steps=2)
    write_rollouts(run, [1], prompts=prompts, everything=everything)
    (run / "teacher_prompts" / "1.jsonl").open("a").write("half a li") if prompts else None
    found, notes = sample_rollouts(load_runs([run])[0], count=100, seed=0)
    assert {rollout.route for rollout in found} == routes
    assert any("1 lines cannot be read" in note for note in notes) is prompts


def test_command_and_its_errors(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", "srpo", steps=3)
    call = CliRunner().invoke
    out = str(tmp_path / "out")
    result = call(app, ["report", str(run), "--out", out, "--budgets", "60s,5m", "--label", "run:method=Mine"])
    assert result.exit_code == 0, result.output
    assert "Mine" in (tmp_path / "out" / "report.md").read_text()
    assert "report.html" in result.output
    for arguments, code, said in (
        ([str(tmp_path / "none")], 1, "is not a folder"),
        ([str(tmp_path / "out")], 1, "holds no run"),
        ([str(run), "--budgets", "soon"], 2, "is not a time"),
        ([str(run), "--label", "x"], 2, "PATTERN:KEY=VALUE"),
        ([str(run), "--metric", "acc"], 2, "needs one *"),
        ([str(run), "--out", str(run / "srpo_run" / "20260101-000000" / "run.json")], 1, "cannot write into"),
    ):
        result = call(app, ["report", "--out", out, *arguments])
        assert result.exit_code == code, result.output
        assert said in " ".join(result.output.replace("│", " ").split())

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = (tmp_path / "out" / "report.html").read_text()
    monkeypatch.setattr(os, "fsync", full)
    result = call(app, ["report", str(run), "--out", out])
    assert result.exit_code == 1
    assert "No space left on device" in result.output
    assert (tmp_path / "out" / "report.html").read_text() == before
    assert not list((tmp_path / "out").rglob(".*"))


def test_another_metric(tmp_path):
    lines = [line(1, timing_s__step=1.0, **{"val-core/x/acc/maj@4/mean": 0.25, "val-core/x/acc/mean@4": 0.5})]
    write_start(tmp_path / "run", config("srpo", seed=0, steps=1), lines)
    report = build_report([tmp_path / "run"], tmp_path / "out", metric="val-core/*/acc/maj@4/mean")
    assert "25.0" in report.markdown.read_text()
    assert json.dumps("val-core/x/acc/maj@4/mean")[1:-1] in report.markdown.read_text()


def test_a_run_that_is_named_twice_is_one_run(tmp_path):
    run = write_run(tmp_path / "runs" / "one", "srpo", steps=10)
    (tmp_path / "link").symlink_to(run)
    runs, _ = load_runs([run, tmp_path / "link", tmp_path / "runs" / ".." / "runs" / "one"])
    assert len(runs) == 1


def test_a_teacher_prompt_without_its_rollouts_number_stops_no_report(tmp_path):
    run = write_run(tmp_path / "run", "srpo", steps=10, rollouts=True)
    (run / "teacher_prompts" / "1.jsonl").write_text('{"uid": "aaaa-1", "rollout": null}\n')
    assert build_report([run], tmp_path / "out").html.is_file()
