"""A folder for each run: never overwrite one that ended well, never delete what is not a run."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

MARKER, SUMMARY = "run.json", "summary.json"


def claim_folder(wanted: Path, *, force: bool = False, keep: bool = False) -> Path:
    """An empty folder to run in: `wanted`, or `wanted-2`, `wanted-3`, ... where that is taken.

    An earlier run that did not finish is replaced, unless `keep`; one that finished only if `force`.
    """
    wanted = wanted.absolute()
    folder, number = wanted, 1
    while folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        is_run = (folder / MARKER).is_file()
        finished = (folder / SUMMARY).is_file()
        if number == 1 and force and not is_run:
            raise FileExistsError(f"{folder} was not made by a run, so --force does not replace it: name another --out")
        if is_run and ((force and number == 1) or not (finished or keep)):
            shutil.rmtree(folder)
            break
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def mark(folder: Path, *, command: Sequence[str], seed: int) -> None:
    """Say that `folder` belongs to a run, and how that run was started."""
    record = {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "seed": seed, "command": list(command)}
    (folder / MARKER).write_text(json.dumps(record, indent=2) + "\n")
