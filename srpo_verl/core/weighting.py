"""Entropy-aware weights of the SDPO branch (arXiv 2604.02288, section 3.2).

    w~_it = exp(-beta H_it),   w_it = w~_it / mean of w~ over all SDPO-routed valid tokens

H is the teacher's entropy over the FULL vocabulary, in nats. The mean is over the whole batch, so the weights must be
computed once, before the batch is split into micro-batches.
"""

from __future__ import annotations

import torch

__all__ = ["entropy_weights"]


def entropy_weights(entropy: torch.Tensor, mask: torch.Tensor, *, beta: float = 1.0) -> torch.Tensor:
    """Weights with mean 1 over the mask, larger where the teacher is sure.

    Args:
        entropy: any shape, any float dtype; the teacher's entropy per token, in nats.
        mask: same shape, bool (or 0/1); the SDPO-routed valid tokens. Values outside it are never looked at.
        beta: how sharply uncertain tokens are discounted; 0 gives weight 1 to every token of the mask.

    Returns:
        Same shape; float64 for float64 entropies, else float32 (a bfloat16 mean would be off by up to 0.4 %). Zero
        outside the mask; all zeros for an empty mask.

    Raises:
        ValueError: negative or non-finite beta, shapes that differ, or a non-finite entropy inside the mask.
    """
    if not 0.0 <= beta < float("inf"):
        raise ValueError(
            f"beta must be 0 or a positive number, not {beta}; a negative one would favour unsure teachers."
        )
    if entropy.shape != mask.shape:
        raise ValueError(f"entropy {tuple(entropy.shape)} and mask {tuple(mask.shape)} must have the same shape.")
    mask = mask.bool()
    dtype = torch.promote_types(entropy.dtype, torch.float32)
    inside = entropy.detach()[mask].double()
    weights = torch.zeros(entropy.shape, dtype=dtype, device=entropy.device)
    if inside.numel() == 0:
        return weights
    bad = ~torch.isfinite(inside)
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} of {inside.numel()} entropies inside the mask are not finite; check the teacher."
        )
    # A constant added to H cancels in the mean; with the minimum subtracted the largest weight before it is exactly 1.
    raw = torch.exp(-beta * (inside - inside.min()))
    weights[mask] = (raw / raw.mean()).to(dtype)
    return weights
