"""Where a cell runs: this machine, an existing Ray cluster, Slurm, Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping

from workflows.reproduce.backends.base import Backend, BackendError
from workflows.reproduce.backends.kubernetes import KubernetesJobs
from workflows.reproduce.backends.local import Local
from workflows.reproduce.backends.ray_jobs import RayJobs
from workflows.reproduce.backends.slurm import SlurmJobs
from workflows.reproduce.spec.site import Site

BACKENDS: Mapping[str, type[Backend]] = {
    "local": Local,
    "ray": RayJobs,
    "slurm": SlurmJobs,
    "kubernetes": KubernetesJobs,
}

__all__ = ["BACKENDS", "Backend", "BackendError", "backend_of"]


def backend_of(site: Site) -> Backend:
    return BACKENDS[site.backend](site)
