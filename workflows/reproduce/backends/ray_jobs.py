"""A Ray cluster that is already there."""

from __future__ import annotations

import json
import re
import shlex
import time
from typing import Any

from workflows.reproduce.backends.base import Backend, BackendError
from workflows.reproduce.spec.cell import Cell

# Ray's own limit is that of its health checks: five, three seconds apart, each with ten seconds to answer.
SECONDS_TO_MISS_A_NODE = 60.0
_PROCESS_LOST = re.compile(r"(ActorDied|ActorUnavailable|WorkerCrashed|NodeDied|OwnerDied|ObjectLost)\w*")


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

    def epitaph(self, job: str, since: float, log: str) -> str:
        """Nodes that left the cluster since then. Ray misses their processes at once and the node a little later."""
        deadline = time.monotonic() + (SECONDS_TO_MISS_A_NODE if _PROCESS_LOST.search(log) else 0)
        while not (lost := self._lost_nodes(since)) and time.monotonic() < deadline:
            time.sleep(1)
        return "\n".join(_obituary(node) for node in lost)

    def _lost_nodes(self, since: float) -> list[Any]:
        from ray.util.state import list_nodes

        nodes = list_nodes(self.site.ray.address, limit=10_000, detail=True)
        return [node for node in nodes if node.state == "DEAD" and (node.end_time_ms or 0) / 1000 >= since]


def _obituary(node: Any) -> str:
    when = time.strftime("%H:%M:%S", time.localtime(node.end_time_ms / 1000))
    reason = f" ({node.state_message})" if node.state_message else ""
    return f"Node {node.node_ip} left the Ray cluster at {when} while the cell ran{reason}."
