"""What a benchmark is: where its rows come from, and the one function that makes a question of a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]


class PrepareError(ValueError):
    """Data that cannot be prepared; the message says what to change."""


@dataclass(frozen=True)
class Question:
    """One row, as a model sees it and as a grader needs it.

    Attributes:
        ground_truth: what the grader of the `data_source` takes (docs/rewards.md); JSON where it is not text.
        index: the row's number in its source, None for its position in the split.
        extra: further entries of `extra_info`; the same names in every row.
        few_shot: messages (role, content) between the system's and the prompt.
    """

    prompt: str
    ground_truth: str
    system: str | None = None
    index: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    few_shot: tuple[dict[str, str], ...] = ()

    @property
    def messages(self) -> list[dict[str, str]]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *self.few_shot, {"role": "user", "content": self.prompt}]


@dataclass(frozen=True)
class HubSplit:
    """Arguments of `datasets.load_dataset`."""

    path: str
    split: str
    config: str | None = None
    data_files: str | None = None


@dataclass(frozen=True)
class Published:
    """What is known of a split: its number of rows, and the hash of their content (see `published.content_hash`)."""

    rows: int
    sha256: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """A data set that `srpo prepare` knows.

    Attributes:
        data_source: the column that chooses the grader; `reward_fns` must know it.
        adapt: makes a question of one row and the name of the split it goes to.
        columns: names that a row in the hub's layout must have; in rows that are not generated, with a value.
        hub: where each split comes from; with `pool`, the one entry `all`.
        pool: makes the splits where the source has none. Called with the selected rows.
        select: which rows belong to the benchmark.
        generate: makes the rows of each split where they are generated; called with `--dataset-kwargs`.
        elsewhere: where to get the files when the hub does not have them; of generated rows, what made them.
    """

    name: str
    data_source: str
    ability: str
    adapt: Callable[[Row, str], Question]
    columns: tuple[str, ...]
    hub: Mapping[str, HubSplit] = field(default_factory=dict)
    pool: Callable[[Sequence[Row]], dict[str, list[Row]]] | None = None
    select: Callable[[Row], bool] | None = None
    published: Mapping[str, Published] = field(default_factory=dict)
    generate: Callable[[Mapping[str, Any]], dict[str, list[Row]]] | None = None
    elsewhere: str = ""

    def verl_row(self, question: Question, split: str, position: int) -> dict[str, Any]:
        """The row in verl's schema."""
        index = position if question.index is None else question.index
        return {
            "data_source": self.data_source,
            "prompt": question.messages,
            "ability": self.ability,
            "reward_model": {"style": "rule", "ground_truth": question.ground_truth},
            "extra_info": {"split": split, "index": index, **question.extra},
        }
