"""What verl's processes leave on a machine when they are killed, by its names for it."""

from __future__ import annotations

import sys
from pathlib import Path

from srpo_verl.base.orphans import remove_orphans

# Buckets of weights on their way to vLLM, 256 MiB each, and the sockets that tell of them.
_LEFTOVERS = ("/dev/shm/verl_weights_*", "/tmp/rl-colocate-zmq-*")


def remove_leftovers() -> list[Path]:
    """Remove those that no process uses, of any run; said on stderr."""
    removed = [path for pattern in _LEFTOVERS for path in remove_orphans(pattern)]
    if removed:
        names = ", ".join(path.name for path in removed[:3]) + (" ..." if len(removed) > 3 else "")
        print(
            f"srpo: note: removed {len(removed)} leftovers of runs that are dead: {names}", file=sys.stderr, flush=True
        )
    return removed
