"""This machine."""

from __future__ import annotations

import os
import shlex

import psutil

from srpo_verl.base.processes import family_of
from workflows.process_tree import ProcessTree
from workflows.reproduce.backends.base import Backend
from workflows.reproduce.spec.cell import Cell
from workflows.reproduce.spec.site import Site

# Marks every process of a local cell, so that what survived a SIGKILL of this program is found.
CELL_VARIABLE = "SRPO_CELL"


class Local(Backend):
    """A process tree on this machine."""

    def __init__(self, site: Site):
        super().__init__(site)
        self._trees: dict[str, ProcessTree] = {}

    @property
    def outlives_us(self) -> bool:
        return False

    def submission(self, cell: Cell, job: str) -> str:
        return shlex.join(["bash", str(cell.folder / "cell.sh")])

    def submit(self, cell: Cell, job: str) -> None:
        command = ["bash", str(cell.folder / "cell.sh")]
        env = {**os.environ, CELL_VARIABLE: str(cell.folder)}
        self._trees[job] = ProcessTree(command, log=cell.folder / "train.log", env=env)

    def alive(self, cell: Cell, job: str) -> bool:
        return job in self._trees and self._trees[job].poll() is None

    def stop(self, cell: Cell, job: str) -> None:
        """Also ends what an earlier invocation, killed, has left of this cell."""
        if tree := self._trees.pop(job, None):
            tree.kill()
        while orphans := family_of(CELL_VARIABLE, str(cell.folder)):
            for process in orphans:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(orphans, timeout=5)
