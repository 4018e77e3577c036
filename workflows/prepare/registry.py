"""Benchmarks by name: ours, those of the entry-point group `srpo_verl.datasets`, and `module:NAME`."""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import entry_points

from workflows.prepare.adapters import maths, programs, sciknoweval, tooluse
from workflows.prepare.benchmark import Benchmark, PrepareError

ENTRY_POINT_GROUP = "srpo_verl.datasets"
BUILTIN = {
    benchmark.name: benchmark
    for module in (sciknoweval, tooluse, maths, programs)
    for benchmark in module.BENCHMARKS
}  # fmt: skip


def known() -> dict[str, Benchmark]:
    """Every benchmark of this environment by name. An entry point names a :class:`Benchmark`."""
    found = dict(BUILTIN)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        benchmark = _checked(point.load(), f"entry point {point.name} of {point.value}")
        if benchmark.name in found:
            raise PrepareError(f"{point.value} calls itself {benchmark.name!r}, which is taken; choose another name")
        found[benchmark.name] = benchmark
    return found


def find(name: str) -> Benchmark:
    """The benchmark called `name`, or the object `module:NAME`."""
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return _checked(getattr(importlib.import_module(module), attribute), name)
        except (ImportError, AttributeError) as error:
            raise PrepareError(f"{name} cannot be imported: {error}") from error
    benchmarks = known()
    if name not in benchmarks:
        near = difflib.get_close_matches(name, benchmarks, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise PrepareError(f"no benchmark {name!r}.{hint} Known: {', '.join(benchmarks)}")
    return benchmarks[name]


def _checked(candidate: object, where: str) -> Benchmark:
    if not isinstance(candidate, Benchmark):
        raise PrepareError(f"{where} is a {type(candidate).__name__}, not a workflows.prepare.benchmark.Benchmark")
    return candidate
