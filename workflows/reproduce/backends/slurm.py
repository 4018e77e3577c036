"""Slurm, through its own commands."""

from __future__ import annotations

import shlex

from workflows.reproduce.backends.base import Backend, BackendError, call
from workflows.reproduce.spec.cell import Cell


class SlurmJobs(Backend):
    """A batch job that starts Ray over its own allocation."""

    def files(self, cell: Cell, job: str) -> dict[str, str]:
        return {
            **super().files(cell, job),
            "slurm.sh": self._render("slurm.sh.j2", cell, job=job, slurm=self.site.slurm),
        }

    def submission(self, cell: Cell, job: str) -> str:
        return shlex.join(["sbatch", str(cell.folder / "slurm.sh")])

    def submit(self, cell: Cell, job: str) -> None:
        call(["sbatch", str(cell.folder / "slurm.sh")])

    def alive(self, cell: Cell, job: str) -> bool:
        return bool(call(["squeue", "--noheader", f"--name={job}", "--format=%i"]).strip())

    def stop(self, cell: Cell, job: str) -> None:
        if self.alive(cell, job):
            call(["scancel", f"--name={job}"])

    def epitaph(self, job: str, since: float, log: str) -> str:
        """Slurm's own word for the end of the job, where accounting is on."""
        try:
            told = call(
                ["sacct", f"--name={job}", "--noheader", "--parsable2", "--allocations", "--format=State,Reason"]
            )
        except BackendError:
            return ""
        return f"Slurm: {told.strip().splitlines()[-1]}" if told.strip() else ""
