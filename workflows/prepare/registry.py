"""Benchmarks by name: ours, those of the entry-point group `srpo_verl.datasets` (its name there), `module:NAME`,
`reasoning-gym:NAME` and `verifiers:NAME`."""

from __future__ import annotations

import difflib
from importlib.metadata import EntryPoint, entry_points

from workflows.prepare.adapters import maths, programs, reasoning_gym, sciknoweval, tooluse, verifiers
from workflows.prepare.adapters.benchmark import Benchmark, PrepareError

ENTRY_POINT_GROUP = "srpo_verl.datasets"
BUILTIN = {
    benchmark.name: benchmark
    for module in (sciknoweval, tooluse, maths, programs)
    for benchmark in module.BENCHMARKS
}  # fmt: skip


def find(name: str) -> Benchmark:
    """The benchmark called `name`, or the object `module:NAME`. Raises PrepareError."""
    if name.startswith(reasoning_gym.NAME):
        return reasoning_gym.find(name)
    if name.startswith(verifiers.NAME):
        return verifiers.find(name)
    if ":" in name:
        return _load(EntryPoint(name, name, ENTRY_POINT_GROUP))
    if name in BUILTIN:
        return BUILTIN[name]
    points = entry_points(group=ENTRY_POINT_GROUP)
    if name in points.names:
        return _load(points[name])
    names = sorted({*BUILTIN, *points.names})
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise PrepareError(f"no benchmark {name!r}.{hint} Known: {', '.join(names)}")


def known() -> list[Benchmark | PrepareError]:
    """Every benchmark of this environment; the error in place of one whose package is broken."""
    found: list[Benchmark | PrepareError] = list(BUILTIN.values())
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            found.append(_load(point))
        except PrepareError as error:
            found.append(error)
    return found


def _load(point: EntryPoint) -> Benchmark:
    try:
        candidate = point.load()
    except Exception as error:
        raise PrepareError(f"{point.value} cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(candidate, Benchmark):
        raise PrepareError(
            f"{point.value} is a {type(candidate).__name__}, not a workflows.prepare.adapters.benchmark.Benchmark"
        )
    return candidate
