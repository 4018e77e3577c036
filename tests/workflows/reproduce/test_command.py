"""The command line: exit codes, what it prints, and the grids that ship."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from workflows.reproduce import command
from workflows.reproduce.run_grid import GridRefused, check_before
from workflows.reproduce.spec.cell import cells
from workflows.reproduce.spec.grid import Grid
from workflows.reproduce.spec.settings_file import load
from workflows.reproduce.spec.site import Site
from workflows.reproduce.states import PENDING, CellState

EXAMPLES = Path(__file__).parents[3] / "examples"


def call(laboratory, *options):
    arguments = [str(laboratory.folder / "grid.yaml"), "--site", str(laboratory.folder / "site.yaml"), *options]
    return CliRunner().invoke(command.app, arguments)


def test_a_grid_from_nothing_to_its_report(laboratory, monkeypatch):
    asked = []
    monkeypatch.setattr(
        command, "report_of", lambda every, grid, folder: asked.append(len(every)) or folder / "report.html"
    )
    status = call(laboratory, "--status")
    assert status.exit_code == 0
    assert "12 cells: 12 pending" in status.output
    assert not (laboratory.folder / "runs").exists()
    part = call(laboratory, "--only", "a s1", "--only", "b grpo s2")
    assert part.exit_code == 0, part.output
    assert "4 cells: 4 done" in part.output
    assert asked == [12]
    assert "12 cells: 4 done, 8 pending" in call(laboratory, "--status").output
    again = call(laboratory, "--only", "a s1", "--no-report")
    assert again.exit_code == 0
    assert "started" not in again.output


def test_a_failure_is_exit_code_1_and_in_the_status(laboratory):
    laboratory.write(overrides=["+stand_in.fault=raises"])
    result = call(laboratory, "--only", "a grpo s1", "--no-report")
    assert result.exit_code == 1
    assert "RuntimeError: CUDA out of memory" in result.output
    status = call(laboratory, "--status")
    assert "12 cells: 11 pending, 1 failed" in status.output
    assert "CUDA out of memory" in status.output


def test_files_that_cannot_be_used_are_exit_code_2(laboratory):
    laboratory.write(seeds="all")
    result = call(laboratory)
    assert result.exit_code == 2
    assert "seeds: Input should be a valid list" in result.output
    laboratory.write()
    assert call(laboratory, "--only", "z").exit_code == 2


def test_dry_run_prints_what_would_run_and_writes_nothing(laboratory):
    result = call(laboratory, "--dry-run", "--only", "a srpo s2")
    assert result.exit_code == 0
    script = laboratory.folder / "runs/a__tiny__srpo__s2/cell.sh"
    for words in (f"--- {script}", "verl.trainer.main_ppo", "--config-name=srpo", "data.seed=2", f"bash {script}"):
        assert words in result.output
    assert not (laboratory.folder / "runs").exists()


@pytest.mark.parametrize("grid", ["paper/grid.yaml", "grid/grid.yaml"])
@pytest.mark.parametrize("site", [*sorted((EXAMPLES / "paper/sites").glob("*.yaml")), EXAMPLES / "grid/site.yaml"])
def test_the_examples_load(grid, site):
    loaded = load(site, Site)
    for cell in cells(load(EXAMPLES / grid, Grid), loaded.runs):
        assert cell.command(loaded)


@pytest.mark.slow
def test_the_papers_grid_is_whole_and_its_configs_compose():
    grid, site = load(EXAMPLES / "paper/grid.yaml", Grid), load(EXAMPLES / "paper/sites/slurm.yaml", Site)
    every = cells(grid, site.runs)
    assert len(every) == 2 * 5 * (5 + 3)
    assert {cell.seed for cell in every[:40]} == {1}
    chemistry = next(cell for cell in every if cell.name == "chemistry__qwen3-8b__srpo__s1")
    checks = [check.metric for check in grid.acceptance if check.applies("chemistry", "qwen3-8b", "srpo")]
    assert checks == ["accuracy", "srpo/routed_share"]
    check_before([CellState(cell, PENDING) for cell in every], site)
    misspelt = grid.model_copy(update={"overrides": ("srpo.betta=1",)})
    with pytest.raises(GridRefused, match="chemistry__qwen3-8b__grpo__s1: "):
        check_before([CellState(cell, PENDING) for cell in cells(misspelt, site.runs)], site)
    assert chemistry.config_arguments(site)[0] == "ray_kwargs.ray_init.num_cpus=null"


@pytest.mark.parametrize(
    ("line", "option", "says"),
    [
        ("overrides: [no_such_key=1]", "--dry-run", "no_such_key is no key"),
        ("budget: {hours: [.inf]}", "--status", "budget.hours[0]"),
    ],
)
def test_a_grid_that_cannot_run_is_refused_before_it_is_run(laboratory, line, option, says):
    grid = laboratory.folder / "grid.yaml"
    grid.write_text(f"{grid.read_text()}\n{line}\n")
    result = call(laboratory, option)
    assert result.exit_code == 2, result.output
    assert says in result.output
