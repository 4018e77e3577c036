"""Numbers that change with the training step, which counts from 1."""

from __future__ import annotations

__all__ = ["linear_decay", "trapezoid"]


def linear_decay(step: int, steps: int) -> float:
    """1 in the first step, falling to 0 over `steps`; 1 throughout if `steps` is 0."""
    return 1.0 if steps <= 0 else max(0.0, 1.0 - (step - 1) / steps)


def trapezoid(step: int, *, warmup_steps: int = 0, decay_start: int = 0, decay_steps: int = 0) -> float:
    """min(1, k / warmup) min(1, (T - k) / decay) with T = decay_start + decay_steps; a length of 0 drops its factor.

    SDPG (arXiv 2606.04036, section 3.5.2).
    """
    rising = min(1.0, step / warmup_steps) if warmup_steps > 0 else 1.0
    left = decay_start + decay_steps - step
    falling = min(1.0, max(0.0, left / decay_steps)) if decay_steps > 0 else 1.0
    return rising * falling
