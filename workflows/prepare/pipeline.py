"""From a benchmark's source to a folder with `train.parquet`, `test.parquet` and `manifest.json`."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from reward_fns.check import Problem, check_rows, not_graded
from reward_fns.result import BadSettings
from workflows.prepare import output, published, registry, sources
from workflows.prepare.adapters import sdpo_rows
from workflows.prepare.adapters.benchmark import Benchmark, PrepareError, Row

VERSION = 1  # of the manifest
BadRows = Literal["refuse", "drop", "keep"]
# Findings of the data check that do not make a row unusable. Code rows are often published without a solution.
HARMLESS = ("duplicate", "contradiction", "no reference")


@dataclass
class SplitReport:
    """What became of one split.

    Attributes:
        rows: number written.
        source_rows: number in the source, before bad rows were dropped or `rows` were asked for.
        content_sha256: `published.content_hash` of the source's rows.
        agreement: a sentence of `published`.
        problems: what the check of the gold answers found, bad rows first.
        not_graded: a sentence on sources whose gold answers are not graded, "" if there are none.
        dropped: number of bad rows left out.
    """

    rows: int = 0
    source_rows: int = 0
    content_sha256: str = ""
    agreement: str = published.UNKNOWN
    problems: list[Problem] = field(default_factory=list)
    not_graded: str = ""
    dropped: int = 0

    @property
    def bad(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.kind not in HARMLESS]


def prepare(
    name: str,
    out: Path,
    *,
    source: Path | None = None,
    split: str | None = None,
    rows: int | None = None,
    bad_rows: BadRows = "refuse",
    strict: bool = False,
    force: bool = False,
    reward_kwargs: Mapping[str, Any] | None = None,
    dataset_kwargs: Mapping[str, Any] | None = None,
    progress: Callable[[str, int], Callable[[], object]] = lambda what, total: lambda: None,
) -> dict[str, SplitReport]:
    """Prepares the benchmark `name` in the folder `out`.

    Args:
        source: local files instead of the hub.
        split: what a file holds whose name does not say it.
        rows: keep the first so many of each split.
        bad_rows: what to do with rows whose gold answer the grader does not accept.
        reward_kwargs: for the grader that checks the gold answers, as in `reward.custom_reward_function.reward_kwargs`.
        dataset_kwargs: settings of a data set that is generated.
        strict: a difference from the published rows is an error.
        progress: called with a stage and its number of steps, returns what is to be called after each.

    Raises:
        PrepareError: with what to change. Then nothing that looks complete is in `out`.
    """
    benchmark = registry.find(name)
    output.refuse_finished(out, force=force)
    with output.folder_of_its_own(out) as begin_to_write:
        output.refuse_finished(out, force=force)  # another preparation may have ended meanwhile
        raw = _raw_rows(benchmark, source, split, dataset_kwargs or {})
        reports, written = _make(benchmark, raw, rows, bad_rows, reward_kwargs, progress)
        refuse(benchmark, reports, bad_rows=bad_rows, strict=strict)
        described = manifest(benchmark, reports, source=source, bad_rows=bad_rows, dataset_kwargs=dataset_kwargs or {})
        begin_to_write()
        output.write(out, written, described)
    return reports


def _make(
    benchmark: Benchmark,
    raw: Mapping[str, Sequence[Row]],
    rows: int | None,
    bad_rows: BadRows,
    reward_kwargs: Mapping[str, Any] | None,
    progress: Callable[[str, int], Callable[[], object]],
) -> tuple[dict[str, SplitReport], dict[str, list[dict[str, Any]]]]:
    """What became of each split, and its rows."""
    reports: dict[str, SplitReport] = {}
    written: dict[str, list[dict[str, Any]]] = {}
    for name_of_split, of_split in sorted(raw.items(), reverse=True):  # train, test
        adapted, failures = adapt_rows(benchmark, of_split, name_of_split)
        report = SplitReport(source_rows=len(of_split), content_sha256=published.content_hash(adapted.values()))
        report.agreement = published.compare(
            report.source_rows, report.content_sha256, benchmark.published.get(name_of_split)
        )
        kept = dict(list(adapted.items())[:rows])
        step = progress(f"checking {name_of_split}", len(kept))
        found, report.not_graded = check_gold_answers(kept, name_of_split, step, reward_kwargs)
        report.problems = sorted([*failures, *found], key=lambda problem: problem.row)
        # A row that cannot be read cannot be kept.
        left_out = {problem.row for problem in (report.bad if bad_rows == "drop" else failures)}
        written[name_of_split] = [row for number, row in kept.items() if number not in left_out]
        report.rows, report.dropped = len(written[name_of_split]), len(left_out)
        reports[name_of_split] = report
    return reports, written


def _raw_rows(
    benchmark: Benchmark, source: Path | None, split: str | None, dataset_kwargs: Mapping[str, Any]
) -> dict[str, list[Row]]:
    if dataset_kwargs and (source or not benchmark.generate):
        raise PrepareError(f"--dataset-kwargs is for generated data sets, and {source or benchmark.name} is not one")
    if source:
        return sources.from_files(benchmark, source, split)
    return benchmark.generate(dataset_kwargs) if benchmark.generate else sources.from_hub(benchmark)


def adapt_rows(
    benchmark: Benchmark, rows: Sequence[Row], split: str
) -> tuple[dict[int, dict[str, Any]], list[Problem]]:
    """verl rows by row number (from 1), and what is wrong with the rows that have none."""
    adapted: dict[int, dict[str, Any]] = {}
    failures: list[Problem] = []
    for number, row in enumerate(rows, start=1):
        of_sdpo = sdpo_rows.recognised(row)
        adapt = sdpo_rows.adapt if of_sdpo else benchmark.adapt
        try:
            # A generated question may have many right answers, and so None as its own.
            if not of_sdpo and not benchmark.generate:
                check_values(row, benchmark.columns)
            made = benchmark.verl_row(adapt(row, split), split, number - 1)
            output.check_row(made)
            adapted[number] = made
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            detail = f"{type(error).__name__}: {error}"
            failures.append(Problem(split, number, benchmark.data_source, "unreadable", detail))
    return adapted, failures


def check_values(row: Row, columns: Sequence[str]) -> None:
    """Raises ValueError naming those of the columns that have no value in this row: null, or pandas' NaN."""
    if empty := [name for name in columns if row[name] is None or row[name] != row[name]]:
        raise ValueError(f"no value in {', '.join(empty)}")


def check_gold_answers(
    rows: Mapping[int, dict[str, Any]], split: str, step: Callable[[], object], reward_kwargs: Mapping[str, Any] | None
) -> tuple[list[Problem], str]:
    """What the graders' data check finds in rows by their number, and `not_graded`; `step` is called after each."""
    threads = os.cpu_count() or 1
    try:
        found, counts = check_rows(
            list(rows.values()), split, threads=threads, on_gold=step, reward_kwargs=reward_kwargs
        )
    except BadSettings as error:
        raise PrepareError(f"--reward-kwargs: {error}") from error
    numbers = list(rows)
    return [replace(problem, row=numbers[problem.row - 1]) for problem in found], not_graded(counts)


def refuse(benchmark: Benchmark, reports: dict[str, SplitReport], *, bad_rows: BadRows, strict: bool) -> None:
    """Raises PrepareError where bad rows, differences or an empty result are not wanted."""
    if bad_rows == "refuse" and (bad := [problem for report in reports.values() for problem in report.bad]):
        listed = "\n".join(f"  {p.file} row {p.row}: {p.kind}: {' '.join(p.detail.split())[:160]}" for p in bad[:20])
        more = f"\n  ... and {len(bad) - 20} more" if len(bad) > 20 else ""
        raise PrepareError(
            f"the grader does not accept the gold answer of {len(bad)} row(s):\n{listed}{more}\n"
            "Leave them out with --bad-rows drop, or keep them with --bad-rows keep"
        )
    if strict and (different := [split for split, report in reports.items() if report.agreement.startswith("DIFFERS")]):
        said = "; ".join(
            f"{split}: {reports[split].agreement} ({reports[split].source_rows} rows, published "
            f"{benchmark.published[split].rows})"
            for split in different
        )
        raise PrepareError(f"--strict, and {said}")
    if empty := [split for split, report in reports.items() if report.rows == 0]:
        raise PrepareError(f"no row is left of {', '.join(empty)}: see --bad-rows and --rows")


def manifest(
    benchmark: Benchmark,
    reports: dict[str, SplitReport],
    *,
    source: Path | None,
    bad_rows: BadRows,
    dataset_kwargs: Mapping[str, Any],
) -> dict[str, Any]:
    """What stands beside the data."""
    return {
        "manifest_version": VERSION,
        "benchmark": benchmark.name,
        "data_source": benchmark.data_source,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "source": _source(benchmark, source, dataset_kwargs),
        "columns": ["data_source", "prompt", "ability", "reward_model", "extra_info"],
        "bad_rows": bad_rows,
        "splits": {
            split: {
                "file": f"{split}.parquet",
                "rows": report.rows,
                "source_rows": report.source_rows,
                "content_sha256": report.content_sha256,
                "published": asdict(benchmark.published[split]) if split in benchmark.published else None,
                "agreement": report.agreement,
                "dropped": report.dropped,
                "problems": dict(Counter(problem.kind for problem in report.problems)),
                "bad_rows": [problem.row for problem in report.bad],
            }
            for split, report in reports.items()
        },
    }


def _source(benchmark: Benchmark, source: Path | None, dataset_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    if source:
        return {"files": _fingerprints(source)}
    if benchmark.generate:
        return {"generated": {"by": benchmark.elsewhere, "dataset_kwargs": dict(dataset_kwargs)}}
    return {"hub": {split: asdict(place) for split, place in benchmark.hub.items()}}


def _fingerprints(source: Path) -> dict[str, str]:
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in sources.local_files(source)}
