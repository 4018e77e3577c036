"""Completions with their gold answers, from the files in which they are found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reward_fns.check import read_rows

SOLUTION = ("solution", "solution_str", "completion", "response", "output", "text")
GOLD = ("ground_truth", "gts", "gold", "answer")


@dataclass(frozen=True)
class Completion:
    """One completion, its gold answer (or tests), and the verdict it deserves where the file has one."""

    source: str
    solution: str
    gold: Any
    extra: dict[str, Any] = field(default_factory=dict)
    expected: float | None = None
    note: str = ""


def read_completions(path: Path, source: str | None = None, rows: int | None = None) -> list[Completion]:
    """The completions of a JSON, JSON lines or Parquet file, such as a dump of rollouts or our `items.jsonl`.

    Raises:
        ValueError or TypeError: a row is no object, or lacks something; the message says which row and what.
    """
    try:
        read = read_rows(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    found = []
    for number, row in enumerate(read[:rows], 1):
        if not isinstance(row, Mapping):
            raise TypeError(f"{path}, row {number}: {row}")
        try:
            found += _of_row(row, source)
        except KeyError as error:
            raise ValueError(f"{path}, row {number}: no {error.args[0]} (the row has {', '.join(row)})") from None
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, row {number}: {error}") from None
    if not found:
        raise ValueError(f"{path} holds no completion")
    return found


def _of_row(row: Mapping[str, Any], source: str | None) -> list[Completion]:
    model = row.get("reward_model")
    gold = model.get("ground_truth") if isinstance(model, Mapping) else None
    gold = _first(row, GOLD, "gold answer") if gold is None else gold
    name = source or row.get("data_source") or row.get("dataset")
    if not name:
        raise KeyError("data_source; give --source")
    samples = row.get("samples")  # one row per question, as srpo evaluate writes it
    if samples and not (isinstance(samples, list) and all(isinstance(one, Mapping) for one in samples)):
        raise TypeError("samples must be a list of objects")
    extra = row.get("extra_info") or {}
    if not isinstance(extra, Mapping):
        raise TypeError(f"extra_info must be an object, not {extra!r}")
    texts = (
        [_first(sample, SOLUTION, "solution") for sample in samples] if samples else [_first(row, SOLUTION, "solution")]
    )
    expected = None if row.get("expected") is None else _score(row["expected"])
    note = str(row.get("kind") or row.get("note") or "")
    return [Completion(str(name), str(text), gold, dict(extra), expected, note) for text in texts]


def _score(expected: Any) -> float:
    try:
        score = float(expected)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(f"expected must be a score, not {expected!r}")
    return score


def _first(row: Mapping[str, Any], names: tuple[str, ...], what: str) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise KeyError(f"{what} ({' or '.join(names)})")
