"""A process that wants folders at the same moment as another, and "trains" in those it gets; for test_lease.py."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from srpo_verl.base.lease import FolderTakenError, LeaseLostError, LeaseTimes, take
from srpo_verl.base.processes import Place, ProcessId


def elsewhere(number: int = 1, host: str = "other") -> ProcessId:
    """A process of a host that is not this one."""
    return ProcessId(Place(host, "its-boot", "pid:[1]"), number, 1)


def contend(root: str, rounds: int, name: str, host: str, barrier, results) -> None:
    """`rounds` times: wait for the others, take `root/ROUND`, write a line, keep it until all have tried."""
    here = ProcessId.of() if host == "local" else elsewhere(host=host)
    for number in range(rounds):
        folder = Path(root, str(number))
        barrier.wait()
        try:
            lease = take(folder, here=here, times=LeaseTimes(interval=0.02, timeout=600)).keep(every=0.02)
        except FolderTakenError as error:
            results.put((number, name, str(error)))
            lease = None
        else:
            results.put((number, name, "trains"))
            with (folder / "metrics.jsonl").open("a") as file:
                lease.check()
                file.write(f"{name}\n")
        barrier.wait()
        if lease is not None:
            lease.release("ended")


def train(folder: str) -> None:
    """Takes the folder and writes line after line, as a trainer does, until it may not."""
    lease = take(Path(folder)).keep(lambda why: None, every=0.05)
    step = 0
    try:
        while True:
            step += 1
            lease.check()
            with Path(folder, "metrics.jsonl").open("a") as file:
                file.write(f"{step}\n")
            print(step, flush=True)
            time.sleep(0.01)
    except LeaseLostError as error:
        print(error, flush=True)
        raise SystemExit(3) from None


if __name__ == "__main__":
    train(sys.argv[1])
