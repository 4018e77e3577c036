"""Completions with their gold answers, from the files in which they are found."""

from __future__ import annotations

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
    found = []
    for number, row in enumerate(read_rows(path)[:rows], 1):
        if not isinstance(row, Mapping):
            raise TypeError(f"{path}, row {number}: {row}")
        try:
            found += _of_row(row, source)
        except KeyError as error:
            raise ValueError(f"{path}, row {number}: no {error.args[0]} (the row has {', '.join(row)})") from None
    if not found:
        raise ValueError(f"{path} holds no completion")
    return found


def _of_row(row: Mapping[str, Any], source: str | None) -> list[Completion]:
    model = row.get("reward_model")
    gold = model.get("ground_truth") if isinstance(model, Mapping) else _first(row, GOLD, "gold answer")
    name = source or row.get("data_source") or row.get("dataset")
    if not name:
        raise KeyError("data_source; give --source")
    samples = row.get("samples")  # one row per question, as srpo evaluate writes it
    texts = (
        [_first(sample, SOLUTION, "solution") for sample in samples] if samples else [_first(row, SOLUTION, "solution")]
    )
    expected = row.get("expected")
    return [
        Completion(
            str(name), str(text), gold, dict(row.get("extra_info") or {}),
            None if expected is None else float(expected), str(row.get("kind") or row.get("note") or ""),
        )
        for text in texts
    ]  # fmt: skip


def _first(row: Mapping[str, Any], names: tuple[str, ...], what: str) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise KeyError(f"{what} ({' or '.join(names)})")
