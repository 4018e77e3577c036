"""`python -m benchmarks [NAME ...]`: run benchmarks, print a table, write JSON; `--check` fails if a limit is exceeded.

    divergence   the loss on the logits, V = 151,936
    whole_loss   log-probs and divergence in one pass, and without logits
    targets      student top-K and teacher targets
    driver       routing, teacher prompts, token weights
    queue_traffic  the driver's part of a step with a real TransferQueue
    payload      bytes per routed token, and what narrower types would do to the loss
    worker_step  SRPO, SDPO and GRPO in turns in one real worker
    ranks        collectives and balance on 1, 2 and 4 ranks

Limits are ratios measured in the same run, never seconds of another machine.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.harness import Measure, save

DEFAULT_OUTPUT = Path("runs/benchmarks.json")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="which benchmarks; all by default")
    parser.add_argument("--check", action="store_true", help="exit code 1 if a value exceeds its limit")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUTPUT, help=f"JSON file ({DEFAULT_OUTPUT})")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (1)")
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 2048], help="rows of logits (512 2048)")
    parser.add_argument(
        "--rollouts", type=int, nargs="+", default=[256, 1024], help="for driver, queue_traffic (256 1024)"
    )
    parser.add_argument(
        "--model", type=Path, help="Hugging Face folder for worker_step; by default a tiny random model"
    )
    parser.add_argument("--groups", type=int, default=4, help="groups of 8 rollouts for worker_step (4)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of each timing (5)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    name = "tiny" if options.model is None else options.model.resolve().parent.name
    settings: dict[str, dict[str, Any]] = {
        "divergence": {"tokens": tuple(options.tokens), "repeats": options.repeats},
        "whole_loss": {"tokens": (min(96, *options.tokens),), "repeats": min(options.repeats, 3)},
        "targets": {"tokens": (min(options.tokens),), "repeats": options.repeats},
        "driver": {"rollouts": tuple(options.rollouts)},
        "queue_traffic": {"rollouts": tuple(options.rollouts)},
        "payload": {},
        "worker_step": {"model": options.model, "groups": options.groups, "repeats": options.repeats, "name": name},
        "ranks": {},
    }
    if unknown := set(options.names) - set(settings):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(settings)}")

    console, failed = Console(width=130), 0
    results: dict[str, list[Measure]] = {}
    for chosen in options.names or settings:
        started = time.monotonic()
        results[chosen] = importlib.import_module(f"benchmarks.{chosen}").run(**settings[chosen])
        table = Table(title=f"{chosen}, {time.monotonic() - started:.0f} s", title_justify="left")
        for column in ("what", "value", "unit", "limit", ""):
            table.add_column(column, justify="right" if column in ("value", "limit") else "left")
        for measure in results[chosen]:
            limit = "" if measure.limit is None else f"{measure.limit:g}"
            table.add_row(
                measure.name, f"{measure.value:,.4g}", measure.unit, limit, "[red]over" if measure.failed else ""
            )
            failed += measure.failed
        console.print(table)
    save(options.out, results)
    console.print(f"written to {options.out}" + (f"; {failed} over their limit" if failed else ""), highlight=False)
    return 1 if failed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
