"""SRPO on the laboratory's task, synchronous and colocated asynchronous: the same seeds, through verl, in turns.

    python -m laboratory.modes --seeds 0 1 2 --steps 60

Each run leaves a record as those of `through_verl` do, and is not repeated. The table at the end has the held-out
accuracy of each evaluation, and the median seconds of a step.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from rich.console import Console
from rich.table import Table

from laboratory.experiments import PUBLISHED_RATES
from laboratory.through_verl import VerlRun, do

MODES = ("srpo", "srpo_colocate_async")


def row_of(record: Path) -> tuple[dict[int, float], float]:
    """Held-out accuracy by step, and the median seconds of a step."""
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    curve = {line["step"]: line["accuracy"] for line in lines if line["kind"] == "eval"}
    return curve, statistics.median(line["timing_s/step"] for line in lines if line["kind"] == "train")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="training steps of each run (default: 60)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--folder", type=Path, default=Path("runs/lab"), help="default: %(default)s")
    args = parser.parse_args()
    rate = json.loads(PUBLISHED_RATES.read_text())["srpo"]
    found = {}
    for seed in args.seeds:
        for mode in MODES:
            record = do(VerlRun("lab", "srpo", rate, seed, args.steps, mode), args.folder)
            found[seed, mode] = row_of(record)
    steps = sorted({step for curve, _ in found.values() for step in curve})
    table = Table(title="held-out accuracy", title_justify="left")
    for column in ("seed", "mode", *(f"step {step}" for step in steps), "s per step"):
        table.add_column(column)
    for (seed, mode), (curve, seconds) in found.items():
        table.add_row(str(seed), mode, *(f"{curve[step]:.3f}" for step in steps), f"{seconds:.2f}")
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
