"""Memory, open files and number of the processes of a run, over its steps."""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist

import numpy as np
import psutil

from workflows.process_tree import ProcessTree


@dataclass
class Samples:
    """Per process, by "title pid": steps, and bytes of its `own_memory`, and open files, at those steps."""

    steps: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    memory: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    files: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    processes: list[int] = field(default_factory=list)

    def take(self, tree: ProcessTree, step: int) -> None:
        members = tree.members()
        self.processes.append(len(members))
        for process in members:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied, IndexError):
                name = f"{process.cmdline()[0].strip().rsplit('/')[-1][:24]} {process.pid}"
                memory, files = own_memory(process), process.num_fds()
                self.steps[name].append(step)
                self.memory[name].append(memory)
                self.files[name].append(files)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(vars(self)))

    def lasting(self, first: int) -> dict[str, np.ndarray]:
        """Processes that were there from step `first` to the end: indices of their samples since then."""
        last = max(steps[-1] for steps in self.steps.values())
        found = {name: np.flatnonzero(np.array(steps) >= first) for name, steps in self.steps.items()}
        return {name: rows for name, rows in found.items() if len(rows) >= 10 and self.steps[name][-1] >= last - 10}


def own_memory(process: psutil.Process) -> int:
    """Bytes of anonymous memory: what a process has allocated for itself.

    Not USS: pages of a library are in it from the moment at which the last other process that uses them ends, so that
    a run beside this one that comes to its end would look like growth.
    """
    memory = process.memory_info()
    return memory.rss - memory.shared


def slope(x: np.ndarray, y: np.ndarray, *, blocks: int = 20) -> tuple[float, float]:
    """Least-squares slope of y over x and the half-width of its 95 % interval.

    Neighbouring samples of a process are not independent, so the fit is made to the means of `blocks` blocks.
    """
    blocks = min(blocks, len(x) // 2)
    x = np.array([part.mean() for part in np.array_split(np.asarray(x, float), blocks)])
    y = np.array([part.mean() for part in np.array_split(np.asarray(y, float), blocks)])
    centred = x - x.mean()
    value = float(centred @ y / (centred @ centred))
    rest = y - y.mean() - value * centred
    error = float(np.sqrt(rest @ rest / (len(x) - 2) / (centred @ centred)))
    return value, NormalDist().inv_cdf(0.975) * error
