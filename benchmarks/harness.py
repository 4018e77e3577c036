"""Timing, peak memory and results, shared by the benchmarks.

On a machine with other work only ratios mean anything, and only of things that were timed in turns. So everything that
is compared is run round after round, a ratio is the median of the ratios of the rounds, and what is timed is the CPU
time of this process (user and system, all threads), which does not count the turns of others.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

Work = Callable[[], Any]


@dataclass(frozen=True)
class Measure:
    """One number; with a `limit` it is checked: `value` may not exceed it."""

    name: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def failed(self) -> bool:
        return self.limit is not None and self.value > self.limit


def rounds(work: Mapping[str, Work], repeats: int, warm_up: int = 1) -> dict[str, list[float]]:
    """CPU seconds of each piece of work in each round; all pieces take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(warm_up + repeats):
        for name, function in work.items():
            gc.collect()
            started = time.process_time()
            function()
            if turn >= warm_up:
                seconds[name].append(time.process_time() - started)
    return seconds


def ratio(numerator: list[float], *denominators: list[float]) -> float:
    """Median over the rounds of numerator / sum of denominators."""
    return statistics.median(n / sum(d) for n, d in zip(numerator, zip(*denominators, strict=True), strict=True))


def peak_bytes(work: Work) -> int:
    """The most memory torch's CPU allocator held during `work` beyond what it held before.

    From the profiler's allocation events, which also show what a kernel allocates inside. `work` must not return or
    keep a tensor that it frees of others.
    """
    work()
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = work()
    live = peak = 0
    events = profiler.profiler.kineto_results.events()
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    del kept
    return peak


def surroundings() -> dict[str, Any]:
    """The machine, the versions and the commit that a result belongs to."""
    root = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
        return done.stdout.strip()

    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else ""),
        "cpu": f"{cpu} x {len(os.sched_getaffinity(0))}",
        "memory_gb": round(memory / 2**20, 1),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "verl", "transformers", "TransferQueue")},
    }


def save(path: Path, results: Mapping[str, list[Measure]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {**surroundings(), "results": {name: [asdict(m) for m in found] for name, found in results.items()}}
    path.write_text(json.dumps(content, indent=1) + "\n")


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []
