"""Kubernetes with the KubeRay operator, through kubectl."""

from __future__ import annotations

import shlex

from workflows.reproduce.backends.base import Backend, call
from workflows.reproduce.spec.cell import Cell


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
        call([*self._kubectl(), "apply", "-f", str(cell.folder / "rayjob.yaml")])

    def alive(self, cell: Cell, job: str) -> bool:
        return self._status(job, "jobDeploymentStatus") not in (None, "Complete", "Failed")

    def stop(self, cell: Cell, job: str) -> None:
        call([*self._kubectl(), "delete", "rayjob", job, "--ignore-not-found", "--wait=false"])

    def epitaph(self, job: str, since: float, log: str) -> str:
        words = [word for field in ("reason", "message") if (word := self._status(job, field))]
        return f"Kubernetes: {', '.join(words)}" if words else ""

    def _kubectl(self) -> list[str]:
        assert self.site.kubernetes is not None
        return [*self.site.kubernetes.kubectl, "--namespace", self.site.kubernetes.namespace]

    def _status(self, job: str, field: str) -> str | None:
        """A field of the RayJob's status; "" while it has none, None if there is no such RayJob."""
        look = ["get", "rayjob", job, "--ignore-not-found", "-o", f"jsonpath={{.metadata.name}} {{.status.{field}}}"]
        told = call([*self._kubectl(), *look]).strip()
        return told.partition(" ")[2] if told else None
