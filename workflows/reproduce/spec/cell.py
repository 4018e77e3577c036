"""One cell of the grid: its coordinates, what it computes, and the command that computes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from srpo_verl.training.durable.checkpoint_store import newest
from workflows.compose_config import compose_config
from workflows.reproduce.spec.checks import rejection
from workflows.reproduce.spec.grid import Benchmark, Budget, Grid, Method, Model
from workflows.reproduce.spec.site import Site
from workflows.run_reader import DUMPS, Record, read_records
from workflows.training_clock import training_clock
from workflows.verl_run import hydra_value

# Steps without an end: the budget ends a run, not verl's number of epochs.
EPOCHS = 100_000


@dataclass(frozen=True)
class Cell:
    """A run of the grid. `folder` is its run folder, `trainer.default_local_dir`."""

    grid: Grid
    benchmark: Benchmark
    model: Model
    method: Method
    seed: int
    runs: Path

    @property
    def name(self) -> str:
        return f"{self.benchmark.name}__{self.model.name}__{self.method.name}__s{self.seed}"

    @property
    def folder(self) -> Path:
        return self.runs / self.name

    @property
    def budget(self) -> Budget:
        return self.grid.budget

    @cached_property
    def spec(self) -> dict[str, Any]:
        """What the run computes: everything of the grid that decides its outcome, nothing of the site."""
        return {
            "benchmark": self.benchmark.name,
            "train": self.benchmark.train,
            "val": self.benchmark.val,
            "model": self.model.path,
            "config": self.method.config_name,
            "seed": self.seed,
            "budget": {"seconds": self.budget.seconds, "steps": self.budget.last_step},
            "overrides": [
                *self.grid.overrides,
                *self.benchmark.overrides,
                *self.model.overrides,
                *self.method.overrides,
            ],
        }

    @property
    def spec_hash(self) -> str:
        return hashlib.sha256(json.dumps(self.spec, sort_keys=True).encode()).hexdigest()[:16]

    def records(self) -> list[Record]:
        """What all starts of the run have logged, as one run."""
        return read_records(self.folder)

    def rejection(self, records: Sequence[Record]) -> str | None:
        """Why the grid's checks reject the run; None if they do not."""
        scope = (self.benchmark.name, self.model.name, self.method.name)
        return rejection(
            [check for check in self.grid.acceptance if check.applies(*scope)],
            [collapse for collapse in self.grid.collapse if collapse.applies(*scope)],
            records,
        )

    def share_done(self, records: Sequence[Record]) -> float:
        """Of the budget, 0 to 1. At 1 the run is finished, at the end of a step."""
        if not records:
            return 0.0
        if self.budget.last_step is not None:
            return min(1.0, records[-1].step / self.budget.last_step)
        assert self.budget.seconds is not None
        return min(1.0, self.seconds_trained(records) / self.budget.seconds)

    def seconds_trained(self, records: Sequence[Record]) -> float:
        """On the training clock."""
        return max(training_clock(records).values(), default=0.0)

    def config_arguments(self, site: Site) -> list[str]:
        """The overrides that choose how and what is trained, without seeds and places."""
        arguments = ["platform=cpu"] if site.cpu_only else []
        if site.backend == "local":
            # Its own Ray, whatever cluster someone has started on this machine.
            arguments += ["+ray_kwargs.ray_init.address=local"]
        else:
            # The cluster is there: Ray refuses to be told its size again.
            arguments += ["ray_kwargs.ray_init.num_cpus=null"]
            arguments += ["ray_kwargs.ray_init.num_gpus=null"] if site.cpu_only else []
        return [*arguments, *site.overrides, *self.spec["overrides"]]

    def command(self, site: Site) -> list[str]:
        """The training command. Later overrides win: the site's, the grid's, then what makes the cell what it is."""
        settings: dict[str, object] = {
            "data.train_files": site.data / self.benchmark.train,
            "data.val_files": site.data / self.benchmark.val,
            "actor_rollout_ref.model.path": self.model.path.replace("{data}", str(site.data)),
            "data.seed": self.seed,
            "actor_rollout_ref.rollout.seed": self.seed,
            "actor_rollout_ref.actor.data_loader_seed": self.seed,
            "trainer.project_name": self.grid.name,
            "trainer.experiment_name": self.name,
            "trainer.default_local_dir": self.folder,
            "hydra.run.dir": self.folder / "hydra",
            "trainer.nnodes": site.nodes,
            "trainer.n_gpus_per_node": site.gpus_per_node,
            "trainer.resume_mode": "auto",
            "trainer.total_epochs": EPOCHS,
        }
        arguments = self.config_arguments(site)
        # Two cells that dump into one place would overwrite each other's steps.
        for key in _dumped(self.method.config_name, tuple(arguments)):
            settings[key] = self.folder / DUMPS[key]
        if self.budget.last_step is not None:
            settings["trainer.total_training_steps"] = self.budget.last_step
        if self._goes_on_where_it_was_logged():
            settings["trainer.val_before_train"] = False
        return [
            site.interpreter,
            "-m",
            "verl.trainer.main_ppo",
            f"--config-name={self.method.config_name}",
            *arguments,
            *(f"{key}={hydra_value(value)}" for key, value in settings.items()),
        ]

    def _goes_on_where_it_was_logged(self) -> bool:
        """Its last checkpoint is of a step that is in the metrics, so validating it again would tell nothing new.

        A run killed between the two has lost the metrics of that step; if it was the last, no step is left to log.
        """
        checkpoint = newest(self.folder)
        return checkpoint is not None and checkpoint.step in {record.step for record in self.records()}


def cells(grid: Grid, runs: Path) -> list[Cell]:
    """All cells in the order they are run: seed by seed, so that a whole table is there early."""
    return [
        Cell(grid, benchmark, model, method, seed, runs)
        for seed in grid.seeds
        for benchmark in grid.benchmarks
        for model in grid.models
        for method in grid.methods
        if not method.models or model.name in method.models
    ]


@cache
def _dumped(config_name: str, arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Keys of what a cell dumps: what its config does, and teacher prompts unless they are turned off."""
    config = compose_config(config_name, arguments, resolve=False)
    on = {key for key in DUMPS if OmegaConf.select(config, key)}
    return tuple(sorted(on if "srpo.dump_dir=null" in arguments else {*on, "srpo.dump_dir"}))


def select(all_cells: Sequence[Cell], patterns: Sequence[str]) -> list[Cell]:
    """Cells whose name contains every word of one of the patterns, e.g. `chemistry srpo s1`; all without patterns.

    A word is a whole coordinate. Raises ValueError for a pattern that fits no cell.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        words = set(pattern.replace(",", " ").replace("__", " ").split())
        found = {cell.name for cell in all_cells if words <= set(cell.name.split("__"))}
        if not found:
            raise ValueError(
                f"--only {pattern!r} fits no cell. A cell is named like {all_cells[0].name}; give some of its parts."
            )
        chosen |= found
    return [cell for cell in all_cells if not patterns or cell.name in chosen]
