"""A Ray node of a test's own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

# Ray waits 30 s for a node, which is not a setting: on a busy machine it may take longer than that.
STARTS = 5


@contextmanager
def ray_node(**settings: Any) -> Iterator[None]:
    """`ray.init` with two CPUs and this working folder on PYTHONPATH, and its end."""
    environment = {"env_vars": {"PYTHONPATH": os.getcwd()}}
    given = {"address": "local", "num_cpus": 2, "include_dashboard": False, "log_to_driver": False, **settings}
    for start in range(STARTS):
        try:
            ray.init(runtime_env=environment, **given)
            break
        except Exception as error:
            ray.shutdown()
            if start + 1 == STARTS or "timed out during startup" not in str(error):
                raise
    try:
        yield
    finally:
        ray.shutdown()
