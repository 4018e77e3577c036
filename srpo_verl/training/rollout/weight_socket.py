"""The socket on which a rank hands its weights to vLLM, under a name that no other run of the machine has.

verl 0.9.1 names it after the Ray job. But the first job of every Ray cluster is 01000000, so two runs on one machine,
each with a Ray of its own, meet on one socket: a vLLM engine then takes the other run's weights, and nothing fails.
"""

from __future__ import annotations

import os
import uuid

# Set in the main process before it starts Ray, whose processes inherit it. On a cluster that was there before, it is
# set nowhere; there Ray's job ids tell the runs apart.
RUN_ID = "SRPO_RUN_ID"
_PREFIX = "ipc:///tmp/rl-colocate-zmq-"


def name_this_run() -> None:
    """Draw a name. Called once, in the main process."""
    os.environ[RUN_ID] = uuid.uuid4().hex[:12]


def of_this_run(handle: str) -> str:
    """verl's name of the socket with the run's name in it; both ends ask here."""
    run = os.environ.get(RUN_ID)
    return handle.replace(_PREFIX, f"{_PREFIX}{run}-", 1) if run else handle
