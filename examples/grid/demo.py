"""A grid of twelve real runs, killed half way and started again: nothing done is lost, nothing done is repeated.

    python examples/grid/demo.py        (make reproduce-demo)

Builds two tiny data sets in runs/grid_demo, runs `srpo reproduce` on grid.yaml and site.yaml, sends it SIGKILL while a
cell is in the middle, starts it again, and checks from the run folders how often each cell was started.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from srpo_verl.training.durable.checkpoint_store import newest
from workflows.reproduce.cell_files import read_outcome
from workflows.reproduce.spec.cell import Cell, cells
from workflows.reproduce.spec.grid import Grid
from workflows.reproduce.spec.settings_file import load
from workflows.reproduce.spec.site import Site
from workflows.tiny.start import Start, build

HERE = Path(__file__).parent
COMMAND = [
    sys.executable,
    "-m",
    "workflows.cli",
    "reproduce",
    str(HERE / "grid.yaml"),
    "--site",
    str(HERE / "site.yaml"),
]
KILL_IN_CELL = 6  # the seventh of twelve


def main() -> None:
    site = load(HERE / "site.yaml", Site)
    for seed in (0, 1):
        build(site.data / f"sums{seed}", Start(seed=seed))
    every = cells(load(HERE / "grid.yaml", Grid), site.runs)
    if any(read_outcome(cell) for cell in every):
        sys.exit(f"{site.runs} holds finished cells: move it away to see the demonstration again")

    started = time.monotonic()
    first = subprocess.Popen(COMMAND)
    while first.poll() is None and not in_the_middle(every[KILL_IN_CELL]):
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = {cell.name for cell in every if read_outcome(cell)}
    print(
        f"\n--- SIGKILL after {time.monotonic() - started:.0f} s, in {every[KILL_IN_CELL].name}; done: {len(done)}\n",
        flush=True,
    )

    code = subprocess.run(COMMAND, check=False).returncode

    starts = {cell.name: len(list(cell.folder.glob("srpo_run/*"))) for cell in every}
    outcomes = {cell.name: outcome.state for cell in every if (outcome := read_outcome(cell))}
    result = {
        "seconds": round(time.monotonic() - started),
        "exit_code": code,
        "done_before_the_kill": len(done),
        "done": sum(state == "done" for state in outcomes.values()),
        "started_once": sum(count == 1 for count in starts.values()),
        "started_twice": [name for name, count in starts.items() if count == 2],
        "steps": {cell.name: [record.step for record in cell.records()] for cell in every},
    }
    print(json.dumps(result, indent=2))
    repeated = [name for name, count in starts.items() if count != 1 and name != every[KILL_IN_CELL].name]
    if code or repeated or result["done"] != len(every):
        sys.exit("the demonstration did not hold")


def in_the_middle(cell: Cell) -> bool:
    """It has a checkpoint and has not done its last step."""
    return newest(cell.folder) is not None and cell.share_done(cell.records()) < 1


if __name__ == "__main__":
    main()
