"""The figures of an evaluation: per data source and over all questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from rich.table import Table

from workflows.evaluate.metrics import Estimate, bootstrap, majority, pass_at_k, powers_of_two

ALL = "all"


@dataclass(frozen=True)
class Figures:
    """Of one set of questions.

    Attributes:
        accuracies: `avg@n`, `pass@k`, `maj@n` (absent where no answer was read), each with its interval. pass@k leaves
            out questions with fewer than k verdicts.
        format_rate: share of answers in the form that was asked for; None where the reward function does not say.
        ungraded: answers without a verdict (`infra_error`); no accuracy counts them.
    """

    questions: int
    answers: int
    accuracies: dict[str, Estimate]
    format_rate: float | None
    mean_tokens: float
    max_tokens: int
    truncated_share: float
    ungraded: int


@dataclass(frozen=True)
class Summary:
    """All figures of an evaluation; `by_source` has "all" first."""

    by_source: dict[str, Figures]
    settings: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        return asdict(self)


def summarise(items: Iterable[Mapping[str, Any]], *, n: int, seed: int, settings: Mapping[str, Any]) -> Summary:
    """The figures of graded questions (see `journal`). Raises ValueError if nothing was graded."""
    everything = sorted(items, key=lambda item: int(item["number"]))
    sources = sorted({item["data_source"] for item in everything})
    groups = {ALL: everything}
    if len(sources) > 1:
        groups |= {source: [item for item in everything if item["data_source"] == source] for source in sources}
    return Summary({name: figures(group, n=n, seed=seed) for name, group in groups.items()}, dict(settings))


def has_verdict(item: Mapping[str, Any]) -> bool:
    """Whether an answer to the question was graded."""
    return any(not sample["infra_error"] for sample in item["samples"])


def why_ungraded(items: Iterable[Mapping[str, Any]]) -> str:
    """A sentence with the commonest reason, of questions none of whose answers was graded."""
    reasons = Counter(sample.get("error") or "no reason is given" for item in items for sample in item["samples"])
    return f"not one of {reasons.total()} answers could be graded: {reasons.most_common(1)[0][0]}"


def figures(items: Sequence[Mapping[str, Any]], *, n: int, seed: int) -> Figures:
    """The figures of one group."""
    samples = [sample for item in items for sample in item["samples"]]
    graded = [[sample for sample in item["samples"] if not sample["infra_error"]] for item in items]
    graded = [group for group in graded if group]
    if not graded:
        raise ValueError(why_ungraded(items))
    correct = [[sample["acc"] for sample in group] for group in graded]
    accuracies = {f"avg@{n}": bootstrap([float(np.mean(group)) for group in correct], seed=seed)}
    for k in powers_of_two(n):
        if values := [
            pass_at_k(len(group), sum(acc >= 0.5 for acc in group), k) for group in correct if len(group) >= k
        ]:
            accuracies[f"pass@{k}"] = bootstrap(values, seed=seed)
    if any(sample["pred"] for sample in samples):
        votes = [
            majority([sample["pred"] for sample in group], right) for group, right in zip(graded, correct, strict=True)
        ]
        accuracies[f"maj@{n}"] = bootstrap(votes, seed=seed)
    formed = [sample["format_ok"] for sample in samples if sample["format_ok"] is not None]
    tokens = [sample["tokens"] for sample in samples]
    return Figures(
        questions=len(items),
        answers=len(samples),
        accuracies=accuracies,
        format_rate=float(np.mean(formed)) if formed else None,
        mean_tokens=float(np.mean(tokens)),
        max_tokens=max(tokens),
        truncated_share=float(np.mean([sample["truncated"] for sample in samples])),
        ungraded=len(samples) - sum(map(len, graded)),
    )


def table(summary: Summary) -> Table:
    """For people."""
    shown = Table(box=None)
    shown.add_column("")
    for name in summary.by_source:
        shown.add_column(name, justify="right")
    columns = list(summary.by_source.values())
    for name in dict.fromkeys(name for one in columns for name in one.accuracies):
        shown.add_row(name, *(_interval(one.accuracies.get(name)) for one in columns))
    shown.add_row("format", *("-" if one.format_rate is None else f"{one.format_rate:.1%}" for one in columns))
    shown.add_row("tokens, mean / max", *(f"{one.mean_tokens:.0f} / {one.max_tokens}" for one in columns))
    shown.add_row("truncated", *(f"{one.truncated_share:.1%}" for one in columns))
    shown.add_row("questions", *(str(one.questions) for one in columns))
    if any(one.ungraded for one in columns):
        shown.add_row("answers without a verdict", *(str(one.ungraded) for one in columns), style="red")
    return shown


def _interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
