"""Student top-K and teacher targets against one bare `logsumexp` and one bare `topk` over the same logits.

`student_topk` runs on the student's logits, `target_statistics` (log-probs at the ids, full-vocabulary entropy) on the
teacher's; `topk_targets` does both on one model. Rows are consecutive, as responses are.
"""

from __future__ import annotations

import torch

from benchmarks.divergence import DTYPES, VOCABULARY, K, problem
from benchmarks.harness import Measure, Work, peak_bytes, ratio, rounds
from srpo_verl.core import student_topk, target_statistics, topk_targets

LIMIT = 1.3


def run(tokens: tuple[int, ...] = (512,), repeats: int = 5) -> list[Measure]:
    results = []
    for count in tokens:
        for name, dtype in DTYPES.items():
            logits, rows, ids, _ = problem(count, dtype)
            logits = logits.detach()

            def ours(logits=logits, rows=rows) -> None:
                target_statistics(logits, rows, student_topk(logits, rows, K))

            work: dict[str, Work] = {
                "ours": ours,
                "one model": lambda x=logits, r=rows: topk_targets(x, r, K),  # type: ignore[misc]
                "logsumexp": lambda x=logits: torch.logsumexp(x, -1),  # type: ignore[misc]
                "topk": lambda x=logits: x.topk(K, -1),  # type: ignore[misc]
            }
            seconds = rounds(work, repeats)
            label = f"{count} tokens {name}"
            bare = seconds["logsumexp"], seconds["topk"]
            results += [
                Measure(f"{label}: time", sorted(seconds["ours"])[repeats // 2], "s"),
                Measure(f"{label}: student + teacher / (logsumexp + topk)", ratio(seconds["ours"], *bare), "x", LIMIT),
                Measure(f"{label}: one model / (logsumexp + topk)", ratio(seconds["one model"], *bare), "x", LIMIT),
                Measure(
                    f"{label}: peak memory / logits",
                    peak_bytes(lambda x=logits, r=rows, i=ids: target_statistics(x, r, i))  # type: ignore[misc]
                    / (count * VOCABULARY * dtype.itemsize),
                    "x",
                    0.1,
                ),
            ]
    return results
