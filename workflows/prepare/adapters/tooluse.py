"""Tool use: questions of ToolAlpaca (arXiv 2306.05301) as SDPO's repository publishes them; they are not on the hub."""

from __future__ import annotations

from workflows.prepare.adapters import sdpo_rows
from workflows.prepare.adapters.benchmark import Benchmark, Published

BENCHMARKS = [
    Benchmark(
        name="tooluse",
        data_source="tooluse",
        ability="tool_use",
        adapt=sdpo_rows.adapt,
        columns=sdpo_rows.COLUMNS,
        published={"train": Published(4046), "test": Published(68)},
        elsewhere="take train.json and test.json from datasets/tooluse of github.com/lasgroup/SDPO",
    )
]
