"""The site file: where and how the grid is run. Nothing here changes what a run computes.

A run folder is read by this program while the run is written by the cluster, so `runs` is on storage that both see
under the same path.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from workflows.reproduce.spec.grid import Overrides
from workflows.reproduce.spec.settings_file import Strict


class RayCluster(Strict):
    """An existing Ray cluster."""

    address: str = "http://127.0.0.1:8265"  # of its dashboard, where jobs are submitted


class Slurm(Strict):
    """One job per cell. `container` needs the pyxis plugin."""

    partition: str | None = None
    account: str | None = None
    time: str | None = None  # Slurm's own limit, e.g. 12:00:00: the budget plus start-up and validation
    gpus: Literal["gpus-per-node", "gres", "none"] = "gpus-per-node"  # how this Slurm is asked for GPUs
    directives: tuple[str, ...] = ()  # further lines, without `#SBATCH`
    container: str | None = None
    mounts: tuple[str, ...] = ()
    port: int = 6379
    notice: Annotated[int, Field(gt=0)] = 300  # seconds before its end at which Slurm says so, and a run saves


class Kubernetes(Strict):
    """A KubeRay RayJob per cell. `claims` mounts volume claims: {claim: path}; `runs` and `data` are on them."""

    namespace: str = "default"
    image: str
    claims: dict[str, str] = Field(default_factory=dict)
    cpus: Annotated[int, Field(gt=0)] = 32
    memory: str = "256Gi"
    shared_memory: str = "64Gi"
    gpu_resource: str = "nvidia.com/gpu"
    ray_version: str | None = None
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    kubectl: tuple[str, ...] = ("kubectl",)


class Site(Strict):
    """See the module's words; examples in examples/paper/sites."""

    backend: Literal["local", "ray", "slurm", "kubernetes"]
    data: Path
    runs: Path
    nodes: Annotated[int, Field(gt=0)] = 1
    gpus_per_node: Annotated[int, Field(gt=0)] = 8
    cpu_only: bool = False  # no GPU: platform=cpu, and `gpus_per_node` counts ranks
    jobs: Annotated[int, Field(gt=0)] = 1  # cells at a time
    python: str = ""  # of the environment the runs use; by default this one's locally, else `python`
    setup: tuple[str, ...] = ()  # shell lines before the run: module load, source activate, ...
    env: dict[str, str] = Field(default_factory=dict)
    overrides: Overrides = ()  # for the machine: parallelism, micro-batches, offloading
    stall_minutes: Annotated[float, Field(gt=0)] = 120  # without a line in log or metrics: failed
    ray: RayCluster = RayCluster()
    slurm: Slurm = Slurm()
    kubernetes: Kubernetes | None = None

    @field_validator("data", "runs")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    @field_validator("env", mode="before")
    @classmethod
    def _text(cls, env: Any) -> Any:
        return {name: str(value) for name, value in env.items()} if isinstance(env, dict) else env

    @model_validator(mode="after")
    def _complete(self) -> Site:
        if self.backend == "kubernetes" and self.kubernetes is None:
            raise ValueError("backend kubernetes needs a section `kubernetes` with at least `image`")
        if self.backend == "local" and self.nodes > 1:
            raise ValueError("backend local is this machine: nodes is 1. For several, use ray, slurm or kubernetes")
        return self

    @property
    def interpreter(self) -> str:
        return self.python or (sys.executable if self.backend == "local" else "python")

    @property
    def gpus(self) -> int:
        """Of one cell."""
        return self.nodes * self.gpus_per_node
