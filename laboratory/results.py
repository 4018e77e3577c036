"""Records of finished runs, read back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

# A run fell if it ends below this share of its best; a form is lost below this share of the answers.
FELL, FORM_LOST = 0.8, 0.9


@dataclass(frozen=True)
class Record:
    """One run."""

    spec: dict[str, Any]
    evals: list[dict[str, Any]]
    train: list[dict[str, Any]]

    @property
    def label(self) -> str:
        return self.spec["label"] or self.spec["method"]

    @property
    def seed(self) -> int:
        return self.spec["seed"]

    def best(self, budget: float = math.inf, clock: str = "step") -> float:
        """Best avg@16 among the validations within the budget; the start counts too, as in the paper's tables."""
        return max(line["accuracy"] for line in self.evals if line[clock] <= budget)

    def at(self, step: int, key: str = "accuracy") -> float:
        return next(line[key] for line in self.evals if line["step"] == step)

    @property
    def final(self) -> float:
        return self.evals[-1]["accuracy"]

    @property
    def fell(self) -> bool:
        """Whether the run ends far below its best."""
        return self.final < FELL * self.best()

    def lost_at(self, form: str) -> int | None:
        """Step of the first validation without the form: of the answers (`form`), of the teacher's (`shown_form`)."""
        return next((line["step"] for line in self.evals if line[form] < FORM_LOST), None)

    @property
    def last_step(self) -> int:
        return self.evals[-1]["step"]

    def tokens(self) -> float:
        """Tokens of the whole run: sampled, and read by the teacher."""
        return self.evals[-1]["sampled_tokens"] + self.evals[-1]["teacher_tokens"]


def read_records(folder: Path) -> list[Record]:
    """All records of an experiment's folder, in the order of their names."""
    return [_read(path) for path in sorted(folder.glob("*.jsonl"))]


def _read(path: Path) -> Record:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    evals = [line for line in lines if line["kind"] == "eval"]
    for line in evals:
        line["tokens"] = line["sampled_tokens"] + line["teacher_tokens"]
    return Record(lines[0], evals, [line for line in lines if line["kind"] == "train"])


def by_label(records: Iterable[Record]) -> dict[str, dict[int, Record]]:
    """label -> seed -> record."""
    found: dict[str, dict[int, Record]] = {}
    for record in records:
        found.setdefault(record.label, {})[record.seed] = record
    return found


def with_clock(records: Sequence[Record]) -> None:
    """Give every validation `clock`: steps times the median CPU seconds per step of the method, over all its runs.

    The machine is shared, so the seconds of one run say as much about its neighbours as about the method.
    """
    for runs in by_label(records).values():
        pace = median(line["seconds"] for record in runs.values() for line in record.train)
        for record in runs.values():
            for line in record.evals:
                line["clock"] = line["step"] * pace
