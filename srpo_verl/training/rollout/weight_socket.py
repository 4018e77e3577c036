"""The socket on which a rank hands its weights to vLLM, under a name that no other run of the machine has.

verl 0.9.1 names it after the Ray job. But the first job of every Ray cluster is 01000000, so two runs on one machine,
each with a Ray of its own, meet on one socket: a vLLM engine then takes the other run's weights, and nothing fails.
"""

from __future__ import annotations

import os
import uuid
from typing import Any

# Set in the main process before it starts Ray, whose processes inherit it. On a cluster that was there before, it is
# set nowhere; there Ray's job ids tell the runs apart.
RUN_ID = "SRPO_RUN_ID"
_PREFIX = "ipc:///tmp/rl-colocate-zmq-"


def name_this_run() -> None:
    """Draw a name. Called once, in the main process."""
    os.environ[RUN_ID] = uuid.uuid4().hex[:12]


def of_this_run(handle: str) -> str:
    """verl's name of the socket with the run's name in it; both ends ask here.

    Raises:
        ValueError: the run has a name, and verl's name of the socket has another form.
    """
    run = os.environ.get(RUN_ID)
    if not run:
        return handle
    if not handle.startswith(_PREFIX):
        raise ValueError(
            f"verl's socket for weights is {handle}, not {_PREFIX}..., so it cannot be given this run's name, and two "
            "runs on one machine could take each other's weights: is this a verl that srpo_verl is tested with?"
        )
    return f"{_PREFIX}{run}-{handle.removeprefix(_PREFIX)}"


def name_socket(rollout: Any, engine: str) -> None:
    """Give the sending end in a GPU worker its name.

    Args:
        rollout: verl's adapter of the rollout engine, None in a worker without one.
        engine: `rollout.name` of verl's config; only vLLM's adapter has a socket.

    Raises:
        AttributeError, ValueError: it has none, or one of another form, and the run has a name.
    """
    if rollout is not None and engine == "vllm":
        rollout.zmq_handle = of_this_run(rollout.zmq_handle)
