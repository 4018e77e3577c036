import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from workflows.reproduce.backends import backend_of
from workflows.reproduce.run_grid import run_grid
from workflows.reproduce.spec.cell import cells
from workflows.reproduce.spec.grid import Grid
from workflows.reproduce.spec.settings_file import load
from workflows.reproduce.spec.site import Site
from workflows.reproduce.states import state_of

STAND_IN = Path(__file__).with_name("stand_in.py")


@dataclass
class Events:
    """Keeps what a Listener is told; calls `act` once when a run has done `step`."""

    told: list = field(default_factory=list)
    step: int = -1
    act: Callable[[], object] = lambda: None

    def started(self, cell):
        self.told.append(("started", cell.name))

    def progress(self, cell, records):
        if records[-1].step >= self.step >= 0:
            self.step = -1
            self.act()

    def ended(self, cell, outcome):
        self.told.append((outcome.state, cell.name))

    def skipped(self, cell, why):
        self.told.append(("skipped", cell.name))


class Laboratory(SimpleNamespace):
    """A grid of 2 data sets x 3 methods x 2 seeds in `folder`, with a stand-in for training."""

    def write(self, **grid):
        (self.folder / "grid.yaml").write_text(yaml.safe_dump({**self.grid, **grid}))

    def write_site(self, **site):
        (self.folder / "site.yaml").write_text(yaml.safe_dump({**self.site, **site}))

    def load(self):
        return load(self.folder / "grid.yaml", Grid), load(self.folder / "site.yaml", Site)

    def cells(self):
        grid, site = self.load()
        return cells(grid, site.runs)

    def states(self):
        _, site = self.load()
        return {cell.name: state_of(cell, site, backend_of(site)) for cell in self.cells()}

    def run(self, chosen=None, *, at_step=None, **options):
        _, site = self.load()
        events = Events([], *(at_step or ()))
        run_grid(chosen or self.cells(), backend_of(site), listener=events, **{"poll": 0.02, **options})
        return events.told

    def steps_done(self):
        return [tuple(line.split()) for line in self.steps.read_text().splitlines()] if self.steps.exists() else []

    @property
    def command(self):
        program = [sys.executable, "-m", "workflows.cli", "reproduce", str(self.folder / "grid.yaml")]
        return [*program, "--site", str(self.folder / "site.yaml"), "--no-report"]


@pytest.fixture
def laboratory(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_IN} "$@"\n')
    python.chmod(0o755)
    steps = tmp_path / "steps.txt"
    monkeypatch.setenv("STAND_IN_STEPS", str(steps))
    # What the tests do with `stand_in.*` is no setting of verl's.
    monkeypatch.setattr("workflows.reproduce.run_grid._check_configs", lambda *_: None)
    benchmarks = [
        {"name": name, "train": f"{name}/train.parquet", "val": f"{name}/test.parquet"} for name in ("a", "b")
    ]
    for benchmark in benchmarks:
        for file in (benchmark["train"], benchmark["val"]):
            path = tmp_path / "data" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file)
    grid = {
        "name": "test",
        "benchmarks": benchmarks,
        "models": [{"name": "tiny", "path": "{data}/model"}],
        "methods": [{"name": name} for name in ("grpo", "sdpo", "srpo")],
        "seeds": [1, 2],
        "budget": {"steps": [5]},
    }
    site = {
        "backend": "local",
        "data": str(tmp_path / "data"),
        "runs": str(tmp_path / "runs"),
        "gpus_per_node": 2,
        "python": str(python),
    }
    lab = Laboratory(folder=tmp_path, grid=grid, site=site, steps=steps)
    lab.write()
    lab.write_site()
    return lab
