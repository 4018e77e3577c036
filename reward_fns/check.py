"""Check a data set before training on it: ``python -m reward_fns.check --data FILE [FILE ...]``.

Reads JSON lines, JSON or Parquet in verl's schema (``data_source``, ``prompt``, ``reward_model.ground_truth``,
``extra_info``), or rows with ``dataset`` and ``answer``. Every gold answer must score 1 against itself and every
reference solution must pass its own tests; rows without tests, with a wrong schema, duplicated, or with the prompt of
another row and a different answer are listed. Ends with status 1 when anything was found. Gold answers of a grader of
one's own are not graded, and that is said: only its author knows what a right reply to it looks like.

``--sources`` lists the registered data sources instead.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward_fns import registry
from reward_fns.compute import compute_score
from reward_fns.result import BadGroundTruth


@dataclass(frozen=True)
class Problem:
    """One finding; ``row`` counts from 1."""

    file: str
    row: int
    source: str
    kind: str
    detail: str


def read_rows(path: Path) -> list[Any]:
    """The rows of a file; what cannot be parsed comes back as the error."""
    if path.suffix == ".parquet":
        return importlib.import_module("pyarrow.parquet").read_table(path).to_pylist()
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        return list(json.loads(text))
    rows: list[Any] = []
    # Not `splitlines`: JSON takes the line separators of Unicode into a text as they are.
    for line in filter(str.strip, text.split("\n")):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            rows.append(error)
    return rows


def normalize(row: Any, source: str | None) -> dict[str, Any]:
    """The row's prompt, source, gold and extra columns; a ``ValueError`` says what is wrong with the schema."""
    if not isinstance(row, dict):
        raise TypeError(f"not an object: {row}")
    found = source or row.get("data_source") or row.get("dataset")
    if not isinstance(found, str) or not found:
        raise ValueError("no data_source")
    model = row.get("reward_model")
    gold = model.get("ground_truth") if isinstance(model, dict) else row.get("ground_truth", row.get("answer"))
    if gold is None:
        raise ValueError("no reward_model.ground_truth")
    prompt = row.get("prompt")
    if isinstance(prompt, list):
        if not prompt or not all(isinstance(m, dict) and m.get("role") and m.get("content") for m in prompt):
            raise ValueError("prompt must be a list of {role, content}, none of them empty")
    elif not isinstance(prompt, str) or not prompt.strip():
        raise ValueError("no prompt")
    extra = row.get("extra_info") or {}
    if not isinstance(extra, dict):
        raise TypeError("extra_info must be an object")
    return {"source": found, "gold": gold, "prompt": prompt, "extra": extra, "row": row}


def check_gold(item: dict[str, Any], reward_kwargs: Mapping[str, Any] | None = None) -> tuple[str, str] | None:
    """What is wrong with a row's gold answer under the run's `reward_kwargs`: (kind, detail), None when nothing."""
    grader = registry.find(item["source"])
    if not grader.builtin:
        return None  # `not_graded` says so
    extra = {"data_source": item["source"], **item["extra"]}
    for key in ("reference", "reference_solution", "canonical_solution", "solution"):
        if item["row"].get(key):
            extra.setdefault(key, item["row"][key])
    module = importlib.import_module(grader.module)
    try:
        completion = module.render_gold(item["gold"], extra)
        problem = module.gold_problem(item["gold"], 5.0) if hasattr(module, "gold_problem") else ""
    except BadGroundTruth as error:
        return "bad gold", str(error)
    if problem:
        return "bad gold", problem
    if completion is None:
        return "no reference", "no reference solution to grade"
    result = compute_score(item["source"], completion, item["gold"], extra, **(reward_kwargs or {}))
    if result["infra_error"]:
        return "no verdict", "the gold answer could not be graded; the log says why"
    if result["timed_out"]:
        return "too slow", "the gold answer runs into the deadline"
    if result["acc"] != 1.0:
        return "gold fails", str(result["feedback"])[:300]
    return None


def check_file(path: Path, source: str | None = None, threads: int = 4) -> tuple[list[Problem], Counter[str]]:
    """All problems of a file, in row order, and the number of rows per source."""
    return check_rows(read_rows(path), path.name, source, threads)


def check_rows(
    rows: Sequence[Any],
    name: str,
    source: str | None = None,
    threads: int = 4,
    on_gold: Callable[[], object] = lambda: None,
    reward_kwargs: Mapping[str, Any] | None = None,
) -> tuple[list[Problem], Counter[str]]:
    """All problems of rows that are called `name`; `on_gold` is called after each gold answer."""
    problems: list[Problem] = []
    counts: Counter[str] = Counter()
    items: list[tuple[int, dict[str, Any]]] = []
    for number, row in enumerate(rows, 1):
        try:
            item = normalize(row, source)
            registry.find(item["source"])
        except registry.UnknownDataSource as error:
            problems.append(Problem(name, number, item["source"], "unknown source", str(error).split(" Known:")[0]))
            continue
        except (ValueError, TypeError) as error:
            problems.append(Problem(name, number, "", "schema", str(error)))
            continue
        counts[item["source"]] += 1
        items.append((number, item))
    problems += _duplicates(name, items)
    with ThreadPoolExecutor(threads) as executor:
        verdicts = executor.map(lambda pair: check_gold(pair[1], reward_kwargs), items)
        for (number, item), found in zip(items, verdicts, strict=True):
            on_gold()
            if found:
                problems.append(Problem(name, number, item["source"], *found))
    return sorted(problems, key=lambda problem: problem.row), counts


def not_graded(sources: Iterable[str]) -> str:
    """A sentence on those of the known `sources` whose gold answers `check_gold` leaves alone, "" if there are none."""
    own = ", ".join(sorted(source for source in sources if not registry.find(source).builtin))
    return own and (
        f"gold answers not graded: {own} has a grader of your own, and how a right reply to it is written is not known "
        "here; `srpo grade` tries it on completions"
    )


def _duplicates(name: str, items: Sequence[tuple[int, dict[str, Any]]]) -> Iterator[Problem]:
    seen: dict[str, tuple[int, str]] = {}
    for number, item in items:
        key = hashlib.sha256(json.dumps([item["source"], item["prompt"]], default=str).encode()).hexdigest()
        gold = json.dumps(item["gold"], default=str)
        if key not in seen:
            seen[key] = (number, gold)
        elif seen[key][1] == gold:
            yield Problem(name, number, item["source"], "duplicate", f"the same as row {seen[key][0]}")
        else:
            detail = f"the prompt of row {seen[key][0]} with another answer"
            yield Problem(name, number, item["source"], "contradiction", detail)


def table(problems: Sequence[Problem], limit: int = 200) -> str:
    """The problems as a table with row numbers."""
    rows = [("file", "row", "source", "problem", "detail")]
    for p in problems[:limit]:
        rows.append((p.file, str(p.row), p.source, p.kind, " ".join(p.detail.split())[:120]))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row[:4], widths, strict=True)), row[4]]) for row in rows]
    if len(problems) > limit:
        lines.append(f"... and {len(problems) - limit} more")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m reward_fns.check", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="JSON lines, JSON or Parquet files")
    parser.add_argument("--source", help="data source of all rows, whatever they name")
    parser.add_argument("--allow-no-reference", action="store_true", help="code rows need no reference solution")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--sources", action="store_true", help="list the registered data sources and end")
    options = parser.parse_args(arguments)
    if options.sources:
        for name in registry.known_sources():
            grader = registry.find(name.rstrip("*")) if name.endswith("*") else registry.find(name)
            print(f"{name:40} {grader.module or grader.load().__module__}")
        return 0
    if not options.data:
        parser.error("give --data FILE (or --sources)")
    found: list[Problem] = []
    for path in options.data:
        problems, counts = check_file(path, options.source, options.threads)
        if options.allow_no_reference:
            problems = [problem for problem in problems if problem.kind != "no reference"]
        found += problems
        rows = ", ".join(f"{count} {name}" for name, count in counts.items()) or "no usable row"
        print(f"{path}: {rows}; {len(problems)} problems")
        if unknown := not_graded(counts):
            print(f"  {unknown}")
    if found:
        print(table(found))
    return int(bool(found))


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    sys.exit(main())
