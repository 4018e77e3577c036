"""A float32 number in three bytes: its nearest bfloat16, which a forward pass can use, and the eight bits after it.

An exponential mean in bfloat16 stands still: a step of 0.05 (a - t) is lost where it is below half a unit in the last
of 8 bits. With eight more bits beside them the mean goes on as if it had 16: a compensated sum whose compensation takes
one byte.
"""

from __future__ import annotations

import torch

__all__ = ["join", "split"]


def split(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest bfloat16 of each number, and what is left in units of 2^-8 of its last place.

    Args:
        values: any shape, float32.

    Returns:
        `(nearest, rest)`: bfloat16 and int8, the shape of `values`. `join` of them is `values`, to 2^-15 of each
        (from 3.39e38 on, bfloat16 knows only infinity).

    Raises:
        ValueError: another dtype.
    """
    if values.dtype != torch.float32:
        raise ValueError(f"only float32 numbers are split, not {values.dtype}.")
    nearest = values.to(torch.bfloat16)
    # As integers, neighbouring floats of one sign are neighbours, over the boundaries of the exponent too.
    left = values.contiguous().view(torch.int32) - nearest.float().view(torch.int32)
    return nearest, ((left + 128) >> 8).clamp_(-128, 127).to(torch.int8)


def join(nearest: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """The float32 numbers that were split.

    Args:
        nearest, rest: bfloat16 and int8 of one shape.

    Raises:
        ValueError: other dtypes, or shapes that differ.
    """
    if (nearest.dtype, rest.dtype) != (torch.bfloat16, torch.int8) or nearest.shape != rest.shape:
        raise ValueError(
            f"bfloat16 and int8 of one shape are joined, not {nearest.dtype} {tuple(nearest.shape)} and "
            f"{rest.dtype} {tuple(rest.shape)}."
        )
    bits = nearest.float().contiguous().view(torch.int32)
    return bits.add_(rest.to(torch.int32), alpha=256).view(torch.float32)
