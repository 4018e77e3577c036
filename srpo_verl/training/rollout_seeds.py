"""What makes a training batch repeatable: a seed per rollout, and one order however the rollouts came in. No verl."""

from __future__ import annotations

import hashlib
import json


def rollout_seed(*, run: int, step: int, prompt: str, sample: int) -> int:
    """A number in [0, 2^31) that only depends on the arguments; equal prompts of one batch have different names."""
    text = json.dumps([run, step, prompt, sample])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def prompt_uid(step: int, position: int) -> str:
    """The uid of a training prompt: its step and its place in the batch. verl splits keys at "_", so none is in it."""
    return f"{step:07d}-{position:05d}"


def batch_order(keys: list[str]) -> list[int]:
    """Positions of `{uid}_{session}_{output}` keys by uid, session and output: no matter which rollout ended first."""
    parts = [key.rsplit("_", 2) for key in keys]
    return sorted(range(len(keys)), key=lambda i: (parts[i][0], *(int(number) for number in parts[i][1:])))
