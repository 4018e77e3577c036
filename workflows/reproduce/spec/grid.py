"""The grid file: what is run. Where and how it is run is the site file's matter (`workflows.reproduce.spec.site`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from workflows.compose_config import config_names
from workflows.reproduce.spec.checks import Check, Collapse
from workflows.reproduce.spec.settings_file import Strict, checked_overrides

# Names become folder names, Slurm and Kubernetes job names; `__` separates the coordinates of a cell.
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+([._-][a-z0-9]+|_[a-z0-9]+)*$", max_length=40)]
Overrides = Annotated[tuple[str, ...], AfterValidator(checked_overrides)]


class Benchmark(Strict):
    """A data set. Paths are relative to the site's `data` folder."""

    name: Name
    train: str
    val: str
    overrides: Overrides = ()


class Model(Strict):
    """A model: a hub name, or a path. `{data}` in it is the site's data folder."""

    name: Name
    path: str
    overrides: Overrides = ()


class Method(Strict):
    """One of srpo_verl's configs, by default the one that has the method's name."""

    name: Name
    config: str = ""
    overrides: Overrides = ()
    models: tuple[str, ...] = ()  # only these; empty = every model

    @property
    def config_name(self) -> str:
        return self.config or self.name


class Budget(Strict):
    """How long each run trains: hours on the training clock (`workflows.training_clock`), or steps.

    Smaller budgets are read from the same run, so each cell runs once, to the largest.
    """

    hours: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = ()
    steps: tuple[Annotated[int, Field(gt=0)], ...] = ()

    @model_validator(mode="after")
    def _one_kind(self) -> Budget:
        if bool(self.hours) == bool(self.steps):
            raise ValueError("give either hours, e.g. [1, 5, 10], or steps, e.g. [100]")
        return self

    @property
    def seconds(self) -> float | None:
        """The largest budget in seconds; None if it is in steps."""
        return 3600 * max(self.hours) if self.hours else None

    @property
    def last_step(self) -> int | None:
        return max(self.steps) if self.steps else None

    def describe(self) -> str:
        return f"{max(self.hours):g} h of training" if self.hours else f"{self.last_step} steps"


class Grid(Strict):
    """Benchmarks x models x methods x seeds. Overrides apply in the order grid, benchmark, model, method."""

    name: Name
    benchmarks: Annotated[list[Benchmark], Field(min_length=1)]
    models: Annotated[list[Model], Field(min_length=1)]
    methods: Annotated[list[Method], Field(min_length=1)]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    budget: Budget
    overrides: Overrides = ()
    acceptance: tuple[Check, ...] = ()
    collapse: tuple[Collapse, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Grid:
        axes: dict[str, Sequence[str | int]] = {
            "benchmarks": [benchmark.name for benchmark in self.benchmarks],
            "models": [model.name for model in self.models],
            "methods": [method.name for method in self.methods],
            "seeds": self.seeds,
        }
        for axis, names in axes.items():
            if twice := sorted({str(name) for name in names if names.count(name) > 1}):
                raise ValueError(f"{axis}: {', '.join(twice)} is there twice")
        for method in self.methods:
            _known("models", method.models, axes["models"], f"method {method.name}")
        for check in [*self.acceptance, *self.collapse]:
            for axis in ("benchmarks", "models", "methods"):
                _known(axis, getattr(check, axis), axes[axis], f"the check of {check.metric}")
        known = config_names()
        for method in self.methods:
            if method.config_name not in known:
                raise ValueError(
                    f"method {method.name}: no config {method.config_name!r}; `config` is one of: {', '.join(known)}"
                )
        return self


def _known(axis: str, names: Sequence[str], all_names: Sequence, who: str) -> None:
    if unknown := sorted(set(names) - set(all_names)):
        raise ValueError(f"{who}: {axis} has no {', '.join(unknown)}; there is: {', '.join(map(str, all_names))}")
