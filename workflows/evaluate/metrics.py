"""Accuracy of n sampled answers per question: avg@k, pass@k, maj@k, and bootstrap intervals over questions.

Pure functions of numbers. A verdict that could not be had is not passed in: it is neither right nor wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean over questions and the bounds of its bootstrap interval."""

    value: float
    low: float
    high: float


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The unbiased estimate of the chance that one of k answers is right: 1 - C(n-c, k) / C(n, k).

    Equation 1 of arXiv 2107.03374 (Codex), for c of n answers right.

    Raises:
        ValueError: k is not within 1..n, or c not within 0..n.
    """
    if not 1 <= k <= n or not 0 <= correct <= n:
        raise ValueError(f"pass@k needs 1 <= k <= n and 0 <= correct <= n, not n={n}, correct={correct}, k={k}")
    return 1.0 - comb(n - correct, k) / comb(n, k)


def majority(answers: Sequence[str], correct: Sequence[float]) -> float:
    """maj@k of one question, k = len(answers): whether the most frequent answer is right.

    An empty answer does not vote. Of several most frequent answers one is drawn: the result is the share of them that
    is right. Verdicts of one answer can differ (a grader may look at more than the answer); their mean counts. 0 if
    nobody votes.
    """
    votes = Counter(answer for answer in answers if answer)
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = [answer for answer, count in votes.items() if count == most]
    verdicts = [
        float(np.mean([right for answer, right in zip(answers, correct, strict=True) if answer == winner]))
        for winner in winners
    ]
    return float(np.mean(verdicts))


def bootstrap(values: Sequence[float], *, seed: int, level: float = 0.95, resamples: int = 2000) -> Estimate:
    """The mean of one number per question, with a percentile interval from resampling the questions.

    Raises:
        ValueError: there are no values.
    """
    data = np.asarray(values, dtype=float)
    if data.size == 0:
        raise ValueError("no question to average over")
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for index in range(resamples):  # one row at a time: resamples x questions would be large
        means[index] = data[rng.integers(data.size, size=data.size)].mean()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(data.mean()), float(low), float(high))


def powers_of_two(n: int) -> list[int]:
    """1, 2, 4, ... up to n, and n itself: the k of pass@k that are reported."""
    ks = [1 << bit for bit in range(n.bit_length())]
    return ks if ks[-1] == n else [*ks, n]
