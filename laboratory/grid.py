"""Many runs on few cores: resumable run by run, at idle priority, a few at once.

    python -m laboratory.grid learning_rates main further_seeds teachers ablations causes --jobs 2 --folder runs/lab

A run whose record exists is not repeated. A run is claimed with a file lock, which the system releases when the process
ends, so any number of grids may work on one folder; `kill -STOP` pauses one. Runs come in the order of the list, seed
by seed, so that a grid that is stopped early has complete comparisons on fewer seeds.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from laboratory.experiments import EXPERIMENTS, specs_of
from laboratory.run import RunSpec, record_path, run


def work(specs: Sequence[RunSpec], folder: Path) -> None:
    """Do every run that is not done; those of other processes are waited for, and done here if they failed."""
    for block in (fcntl.LOCK_NB, 0):
        for spec in specs:
            path = record_path(folder, spec)
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path.with_suffix(".lock"), "w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | block)
                except BlockingIOError:
                    continue
                if not path.exists():
                    _timed(spec, folder)


def _timed(spec: RunSpec, folder: Path) -> None:
    clock, cpu = time.monotonic(), time.process_time()
    print(f"{spec.name} starts", flush=True)
    run(spec, folder)
    wall = time.monotonic() - clock
    print(f"{spec.name} done: {wall:.0f} s, {time.process_time() - cpu:.0f} s of CPU", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", choices=sorted(EXPERIMENTS), help="in the order of their priority")
    parser.add_argument("--folder", type=Path, default=Path("runs/lab"), help="records and start policies go here")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once (default: 1)")
    parser.add_argument("--list", action="store_true", help="print the runs and whether they are done, then stop")
    args = parser.parse_args()
    if args.list:
        for name in args.experiments:
            for spec in specs_of(name, args.folder):
                print("done   " if record_path(args.folder, spec).exists() else "missing", spec.name)
        return
    if args.jobs > 1:
        command = [sys.executable, "-m", "laboratory.grid", *args.experiments, "--folder", str(args.folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        children = [subprocess.Popen(command, env=environment) for _ in range(args.jobs)]
        raise SystemExit(max(child.wait() for child in children))
    for name in args.experiments:
        work(specs_of(name, args.folder), args.folder)


if __name__ == "__main__":
    main()
