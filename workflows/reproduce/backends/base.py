"""What the backends have in common.

Every backend runs the same `cell.sh` in the cell's folder, which leaves its output in `train.log` and its exit code
in `exit_code`. A backend only starts it, says whether it still runs, and ends it. A job is known by a name chosen
before it is started, so one that outlived this program is found again.
"""

from __future__ import annotations

import shlex
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import jinja2

from srpo_verl.cpu.environment import CPU_ENVIRONMENT
from workflows.reproduce.spec.cell import Cell
from workflows.reproduce.spec.site import Site
from workflows.verl_run import QUIET_ENVIRONMENT


class BackendError(RuntimeError):
    """The cluster did not answer, or refused."""


class Backend(ABC):
    """What the four have in common: the files of a cell."""

    def __init__(self, site: Site):
        self.site = site
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("workflows.reproduce"),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self._templates.filters["quote"] = lambda value: shlex.quote(str(value))

    def files(self, cell: Cell, job: str) -> dict[str, str]:
        """Contents of the files that are written into the cell's folder before it starts, by name."""
        return {
            "env.sh": self._render("env.sh.j2", cell, defaults=self.environment()),
            "cell.sh": self._render("cell.sh.j2", cell, command=cell.command(self.site)),
        }

    def environment(self) -> dict[str, str]:
        """Variables every process gets unless it has them already."""
        return {**QUIET_ENVIRONMENT, **(CPU_ENVIRONMENT if self.site.cpu_only else {})}

    @abstractmethod
    def submission(self, cell: Cell, job: str) -> str:
        """How the cell is started, for people."""

    @abstractmethod
    def submit(self, cell: Cell, job: str) -> None:
        """Start `cell.sh`. Raises BackendError if that is refused."""

    @abstractmethod
    def alive(self, cell: Cell, job: str) -> bool:
        """Whether the job waits or runs. Raises BackendError if the cluster does not say."""

    @abstractmethod
    def stop(self, cell: Cell, job: str) -> None:
        """End the job if it runs, and what it left."""

    def epitaph(self, job: str, since: float, log: str) -> str:
        """What the cluster says of a job that failed after `since` (seconds of the epoch) with `log`; may be empty."""
        return ""

    @property
    def outlives_us(self) -> bool:
        """Whether a job goes on when this program ends, to be watched by the next one."""
        return True

    def _render(self, template: str, cell: Cell, **values: Any) -> str:
        return self._templates.get_template(template).render(cell=cell, site=self.site, **values)


def call(command: Sequence[str], *, timeout: float = 120) -> str:
    """Output of a cluster's own command; BackendError with its words if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendError(f"{shlex.join(command)}: {error}") from error
    if done.returncode != 0:
        raise BackendError(f"{shlex.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
