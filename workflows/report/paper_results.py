"""What the paper reports, to stand beside one's own numbers: arXiv 2604.02288v1, Table 1."""

from __future__ import annotations

PAPER = "arXiv 2604.02288v1, Table 1: single runs on 8 H20 GPUs"
METRIC = "mean@16"
_BUDGETS = (3600.0, 5 * 3600.0, 10 * 3600.0)
# As they are called in the names of data sources.
_BENCHMARKS = ("chemistry", "physics", "biology", "materials", "tool")

# Before training, by benchmark; then best avg@16 (%) within 1 h, 5 h, 10 h by method and benchmark.
_BEFORE = {"qwen3-8b": (41.1, 58.7, 30.5, 59.3, 57.9), "qwen3-4b": (43.6, 59.8, 30.8, 61.2, 58.8)}
_TABLE_1 = {
    ("qwen3-8b", "GRPO"): (
        (62.1, 75.9, 78.9), (61.0, 72.3, 73.6), (46.9, 68.1, 70.6), (74.7, 77.6, 77.8), (64.3, 68.5, 69.0)
    ),
    ("qwen3-8b", "SDPO"): (
        (71.6, 80.6, 80.6), (67.6, 74.0, 74.0), (52.1, 58.5, 58.5), (68.1, 76.6, 76.6), (64.8, 65.7, 65.7)
    ),
    ("qwen3-8b", "SRPO"): (
        (69.2, 81.8, 83.0), (69.5, 77.1, 78.4), (55.8, 68.3, 72.8), (74.9, 79.2, 81.5), (65.2, 71.2, 71.2)
    ),
    ("qwen3-4b", "GRPO"): (
        (64.1, 76.9, 78.3), (64.8, 71.9, 71.9), (39.1, 51.6, 55.5), (78.0, 78.9, 80.1), (62.9, 62.9, 62.9)
    ),
    ("qwen3-4b", "SDPO"): (
        (70.0, 77.3, 77.3), (65.4, 66.7, 66.7), (54.0, 54.0, 54.0), (74.3, 74.3, 74.3), (61.1, 61.1, 61.1)
    ),
    ("qwen3-4b", "SRPO"): (
        (68.8, 81.0, 82.7), (69.2, 74.0, 74.0), (53.8, 58.6, 65.8), (75.7, 79.1, 81.3), (61.4, 63.1, 67.0)
    ),
}  # fmt: skip


def published(model: str, benchmark: str, method: str) -> dict[float, float] | None:
    """{budget in seconds: accuracy in per cent}, 0 for before training; None where the paper has no such result.

    `model` is recognised by its last part, `benchmark` by the subject in its name.
    """
    name = model.rsplit("/", 1)[-1].lower()
    column = next((place for place, subject in enumerate(_BENCHMARKS) if subject in benchmark.lower()), None)
    if (name, method) not in _TABLE_1 or column is None:
        return None
    return {0.0: _BEFORE[name][column], **dict(zip(_BUDGETS, _TABLE_1[name, method][column], strict=True))}
