"""A verdict by a coin: about half of all replies are correct, whatever the model.

For measuring a training step: every step then has routed rollouts, with random weights too.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **_: Any
) -> dict[str, Any]:
    """1 or 0, a function of the reply alone."""
    correct = float(crc32(solution_str.encode()) % 2)
    return {"score": correct, "acc": correct, "format_ok": 1.0, "feedback": "", "infra_error": 0.0}
