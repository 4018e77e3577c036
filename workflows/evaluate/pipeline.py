"""Sample, grade, write down, summarise; goes on where an earlier call was stopped."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from srpo_verl.base.files import write_atomically
from srpo_verl.base.lease import Lease, take
from srpo_verl.config.data_check import check_file
from workflows.evaluate.engine import Engine, Sampling
from workflows.evaluate.grading import grade
from workflows.evaluate.journal import Journal, fingerprint
from workflows.evaluate.summary import Summary, has_verdict, summarise, why_ungraded

SUMMARY = "summary.json"


def evaluate(
    rows: Sequence[Mapping[str, Any]],
    out: Path,
    *,
    engine: Callable[[], Engine],
    reward: Callable[..., Any],
    sampling: Sampling,
    settings: Mapping[str, Any],
    batch: int = 64,
    progress: Callable[[int, int], object] = lambda done, total: None,
    tell: Callable[[str], object] = lambda sentence: None,
) -> Summary:
    """Evaluates `rows` (verl's schema) and writes items.jsonl and summary.json into `out`.

    Args:
        engine: called once, and only if something is left to do: loading a model takes its time.
        settings: what the answers depend on besides `sampling`; see `describe`.
        batch: questions whose answers are sampled together. What a kill can lose.
        progress: called with the number of questions done and of all.
        tell: is given a sentence where an earlier evaluation's end is waited for.

    Raises:
        srpo_verl.base.lease.FolderTakenError: another evaluation writes into `out`.
        SettingsDifferError: `out` holds the answers of another evaluation.
        ValueError: not one answer of the first batch, or of a data source, could be graded; the message says why.
        OSError: `out` cannot be written; what was graded before is in it.
    """
    with take(out, what="evaluating", tell=tell).keep() as lease:
        return _evaluate(rows, out, lease, engine, reward, sampling, settings, batch, progress)


def _evaluate(
    rows: Sequence[Mapping[str, Any]],
    out: Path,
    lease: Lease,
    engine: Callable[[], Engine],
    reward: Callable[..., Any],
    sampling: Sampling,
    settings: Mapping[str, Any],
    batch: int,
    progress: Callable[[int, int], object],
) -> Summary:
    described = {**settings, "sampling": sampling.record()}
    journal = Journal(out, described, may_write=lease.check)
    left = [number for number in range(len(rows)) if number not in journal.done]
    progress(len(journal.done), len(rows))
    if left:
        started = time.monotonic()
        sampler = engine()
        prompts = {number: sampler.prompt_ids(rows[number]["prompt"]) for number in left}
        with ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1))) as executor:
            for start in range(0, len(left), batch):
                numbers = left[start : start + batch]
                answers = sampler.generate([(number, prompts[number]) for number in numbers])
                items = [
                    {
                        "number": number,
                        "data_source": rows[number]["data_source"],
                        "index": (rows[number].get("extra_info") or {}).get("index"),
                        "samples": grade(reward, rows[number], several, executor),
                    }
                    for number, several in zip(numbers, answers, strict=True)
                ]
                if not any(map(has_verdict, (*journal.done.values(), *items))):
                    raise ValueError(why_ungraded(items))  # found now, and asked again next time
                journal.append(items)
                progress(len(journal.done), len(rows))
        described["seconds_of_this_call"] = round(time.monotonic() - started, 1)
    summary = summarise(journal.done.values(), n=sampling.n, seed=sampling.seed, settings=described)
    lease.check()
    write_atomically(out / SUMMARY, json.dumps(summary.record(), indent=2) + "\n")
    return summary


def read_rows(data: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """The rows of a parquet file in verl's schema, the first `limit` of them.

    Raises:
        ValueError: no such file, not parquet, a column that is missing or of another type, a row without prompt,
            source or gold answer.
    """
    import pyarrow.parquet

    if not data.is_file():
        raise ValueError(f"{data}: there is no such file; `srpo prepare` makes one")
    report = check_file(str(data))
    for sentence in (*report.problems, *report.bad_rows):
        raise ValueError(f"{data} {sentence}")
    return pyarrow.parquet.read_table(data).to_pylist()[:limit]


def describe(model: str, data: Path, rows: int, **others: Any) -> dict[str, Any]:
    """The settings of an evaluation: which model, which data, by content where they are here, and `others`."""
    folder = Path(model)
    return {
        "model": model,
        "model_sha256": fingerprint(folder) if folder.is_dir() else None,
        "data": str(data),
        "data_sha256": fingerprint(data),
        "rows": rows,
        **others,
    }
