"""Wait until the Ray cluster has the GPUs that a cell needs: nodes start one after the other, and come back.

    python -m workflows.reproduce.wait_for_gpus 16

The cluster is that of RAY_ADDRESS, which Ray's job server and our Slurm script set.
"""

from __future__ import annotations

import sys
import time

import ray

TIMEOUT, PATIENCE = 600.0, 2.0


def wait_for_gpus(wanted: int, *, timeout: float = TIMEOUT) -> None:
    """Return when the cluster has `wanted` GPUs. Raises TimeoutError, naming the nodes there are."""
    deadline = time.monotonic() + timeout
    _connect(deadline)
    told = -1.0
    while (there := ray.cluster_resources().get("GPU", 0)) < wanted:
        if time.monotonic() > deadline:
            nodes = [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]
            raise TimeoutError(
                f"the Ray cluster has {there:.0f} of the {wanted} GPUs this cell needs after {timeout:.0f} s. "
                f"Its nodes: {', '.join(nodes)}. Is one missing, or nodes x gpus_per_node of the site file too large?"
            )
        if there != told:
            told = there
            print(f"waiting for GPUs: the Ray cluster has {there:.0f} of {wanted}", flush=True)
        time.sleep(PATIENCE)
    ray.shutdown()


def _connect(deadline: float) -> None:
    while True:
        try:
            ray.init(address="auto", log_to_driver=False, configure_logging=False)
            return
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(PATIENCE)


if __name__ == "__main__":
    wait_for_gpus(int(sys.argv[1]))
