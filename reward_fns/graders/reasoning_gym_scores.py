"""The part of the reasoning_gym grader that runs in a worker process, and what its fork server imports beforehand."""

from __future__ import annotations

import ast
import functools
from typing import Any

import reasoning_gym


def score(name: str, answer: str, entry: str) -> float:
    """What the data set's own scorer says to ``answer``; ``entry`` is the literal of the dict that it came with."""
    return float(_scorer(name)(answer, ast.literal_eval(entry)))


@functools.cache
def _scorer(name: str) -> Any:
    return reasoning_gym.get_score_answer_fn(name)
