"""A seed of its own for every rollout, so that a repeated step draws what it drew before. No verl."""

from __future__ import annotations

import hashlib
import json


def rollout_seed(*, run: int, step: int, prompt: str, sample: int) -> int:
    """A number in [0, 2^31) that only depends on the arguments; equal prompts of one batch have different names."""
    text = json.dumps([run, step, prompt, sample])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
