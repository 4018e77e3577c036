"""Where a cell runs: this machine, an existing Ray cluster, Slurm, Kubernetes.

Every backend runs the same `cell.sh` in the cell's folder, which leaves its output in `train.log` and its exit code
in `exit_code`. A backend only starts it, says whether it still runs, and ends it. A job is known by a name chosen
before it is started, so one that outlived this program is found again.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import psutil

from workflows.process_tree import ProcessTree, family_of
from workflows.reproduce.cell import Cell
from workflows.reproduce.site import Site
from workflows.verl_run import CPU_ENVIRONMENT, QUIET_ENVIRONMENT

# Marks every process of a local cell, so that what survived a SIGKILL of this program is found.
CELL_VARIABLE = "SRPO_CELL"


class BackendError(RuntimeError):
    """The cluster did not answer, or refused."""


class Backend:
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
        """Variables every process gets unless it has them already. Hub access is the site's decision."""
        quiet = {name: value for name, value in QUIET_ENVIRONMENT.items() if name != "HF_HUB_OFFLINE"}
        return {**quiet, **(CPU_ENVIRONMENT if self.site.cpu_only else {})}

    def submission(self, cell: Cell, job: str) -> str:
        """How the cell is started, for people."""
        raise NotImplementedError

    def submit(self, cell: Cell, job: str) -> None:
        """Start `cell.sh`. Raises BackendError if that is refused."""
        raise NotImplementedError

    def alive(self, cell: Cell, job: str) -> bool:
        """Whether the job waits or runs. Raises BackendError if the cluster does not say."""
        raise NotImplementedError

    def stop(self, cell: Cell, job: str) -> None:
        """End the job if it runs, and what it left."""
        raise NotImplementedError

    def epitaph(self, job: str, since: float) -> str:
        """What the cluster says of a job that failed after `since` (seconds of the epoch); may be empty."""
        return ""

    @property
    def outlives_us(self) -> bool:
        """Whether a job goes on when this program ends, to be watched by the next one."""
        return True

    def _render(self, template: str, cell: Cell, **values: Any) -> str:
        return self._templates.get_template(template).render(cell=cell, site=self.site, **values)


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


class RayJobs(Backend):
    """A job on an existing Ray cluster, through its job server. `ray job list` shows it."""

    def _client(self) -> Any:
        from ray.job_submission import JobSubmissionClient

        try:
            return JobSubmissionClient(self.site.ray.address)
        except (ConnectionError, RuntimeError) as error:
            raise BackendError(
                f"no Ray job server at {self.site.ray.address} (site file, ray.address): {error}"
            ) from error

    def submission(self, cell: Cell, job: str) -> str:
        runtime_env = shlex.quote(json.dumps({"env_vars": {**self.environment(), **self.site.env}}))
        return (
            f"ray job submit --address {self.site.ray.address} --submission-id {job} --no-wait "
            f"--runtime-env-json {runtime_env} -- bash {shlex.quote(str(cell.folder / 'cell.sh'))}"
        )

    def submit(self, cell: Cell, job: str) -> None:
        try:
            self._client().submit_job(
                entrypoint=shlex.join(["bash", str(cell.folder / "cell.sh")]),
                submission_id=job,
                # Workers inherit the environment of their node, not of the job's first process.
                runtime_env={"env_vars": {**self.environment(), **self.site.env}},
            )
        except RuntimeError as error:
            raise BackendError(f"the Ray cluster did not take the job: {error}") from error

    def alive(self, cell: Cell, job: str) -> bool:
        try:
            return not self._client().get_job_status(job).is_terminal()
        except (ConnectionError, RuntimeError) as error:
            if "does not exist" in str(error):
                return False
            raise BackendError(f"the Ray cluster does not say how job {job} is: {error}") from error

    def stop(self, cell: Cell, job: str) -> None:
        if self.alive(cell, job):
            self._client().stop_job(job)
            deadline = time.monotonic() + 60
            while self.alive(cell, job) and time.monotonic() < deadline:
                time.sleep(0.5)

    def epitaph(self, job: str, since: float) -> str:
        """Nodes that left the cluster since then."""
        from ray.util.state import list_nodes

        lost = [
            node
            for node in list_nodes(self.site.ray.address, limit=10_000)
            if node.state == "DEAD" and (node.end_time_ms or 0) / 1000 >= since
        ]
        return "\n".join(_obituary(node) for node in lost)


def _obituary(node: Any) -> str:
    when = time.strftime("%H:%M:%S", time.localtime(node.end_time_ms / 1000))
    reason = f" ({node.state_message})" if node.state_message else ""
    return f"Node {node.node_ip} left the Ray cluster at {when} while the cell ran{reason}."


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
        _run(["sbatch", str(cell.folder / "slurm.sh")])

    def alive(self, cell: Cell, job: str) -> bool:
        return bool(_run(["squeue", "--noheader", f"--name={job}", "--format=%i"]).strip())

    def stop(self, cell: Cell, job: str) -> None:
        if self.alive(cell, job):
            _run(["scancel", f"--name={job}"])

    def epitaph(self, job: str, since: float) -> str:
        """Slurm's own word for the end of the job, where accounting is on."""
        try:
            told = _run(
                ["sacct", f"--name={job}", "--noheader", "--parsable2", "--allocations", "--format=State,Reason"]
            )
        except BackendError:
            return ""
        return f"Slurm: {told.strip().splitlines()[-1]}" if told.strip() else ""


class KubernetesJobs(Backend):
    """A KubeRay RayJob: its operator makes the Ray cluster, runs the cell, takes the cluster down."""

    def files(self, cell: Cell, job: str) -> dict[str, str]:
        kubernetes = self.site.kubernetes
        assert kubernetes is not None
        env = {**self.environment(), **self.site.env}
        resources = {"cpu": str(kubernetes.cpus), "memory": kubernetes.memory}
        if not self.site.cpu_only:
            resources[kubernetes.gpu_resource] = str(self.site.gpus_per_node)
        manifest = self._render(
            "rayjob.yaml.j2",
            cell,
            job=job,
            kubernetes=kubernetes,
            start_params={"num-gpus": str(self.site.gpus_per_node)},
            env=[{"name": name, "value": value} for name, value in env.items()],
            resources=resources,
        )
        return {**super().files(cell, job), "rayjob.yaml": manifest}

    def submission(self, cell: Cell, job: str) -> str:
        return shlex.join([*self._kubectl(), "apply", "-f", str(cell.folder / "rayjob.yaml")])

    def submit(self, cell: Cell, job: str) -> None:
        _run([*self._kubectl(), "apply", "-f", str(cell.folder / "rayjob.yaml")])

    def alive(self, cell: Cell, job: str) -> bool:
        return self._status(job, "jobDeploymentStatus") not in (None, "Complete", "Failed")

    def stop(self, cell: Cell, job: str) -> None:
        _run([*self._kubectl(), "delete", "rayjob", job, "--ignore-not-found", "--wait=false"])

    def epitaph(self, job: str, since: float) -> str:
        words = [word for field in ("reason", "message") if (word := self._status(job, field))]
        return f"Kubernetes: {', '.join(words)}" if words else ""

    def _kubectl(self) -> list[str]:
        assert self.site.kubernetes is not None
        return [*self.site.kubernetes.kubectl, "--namespace", self.site.kubernetes.namespace]

    def _status(self, job: str, field: str) -> str | None:
        """A field of the RayJob's status; "" while it has none, None if there is no such RayJob."""
        look = ["get", "rayjob", job, "--ignore-not-found", "-o", f"jsonpath={{.metadata.name}} {{.status.{field}}}"]
        told = _run([*self._kubectl(), *look]).strip()
        return told.partition(" ")[2] if told else None


BACKENDS: Mapping[str, type[Backend]] = {
    "local": Local,
    "ray": RayJobs,
    "slurm": SlurmJobs,
    "kubernetes": KubernetesJobs,
}


def backend_of(site: Site) -> Backend:
    return BACKENDS[site.backend](site)


def _run(command: Sequence[str], *, timeout: float = 120) -> str:
    """Output of a cluster's own command; BackendError with its words if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendError(f"{shlex.join(command)}: {error}") from error
    if done.returncode != 0:
        raise BackendError(f"{shlex.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
