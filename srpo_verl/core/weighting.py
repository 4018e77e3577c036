"""Token weights of the SDPO branch (arXiv 2604.02288, section 3.2).

    w~_it = exp(-beta H_it),   w_it = w~_it / mean of w~ over all SDPO-routed valid tokens

H is the teacher's entropy over the FULL vocabulary, in nats. The mean is over the whole batch, so the weights must be
computed once, before the batch is split into micro-batches. Other raw weights may be functions of all that teacher and
student say of a token; the mask and the mean of 1 do not depend on them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["TokenSignals", "entropy_weights", "mean_one_weights", "raw_entropy_weights", "turn_numbers", "turn_weights"]


@dataclass(frozen=True)
class TokenSignals:
    """The T routed valid tokens of a batch; (T,), float64 in nats unless said otherwise.

    Attributes:
        teacher_entropy, student_entropy: over the full vocabulary.
        teacher_log_probs, student_log_probs: of the token that was sampled.
        rollout: int64, equal for the tokens of one rollout; numbered from 0.
        position: int64, of the token in its response.
        turn: int64, equal for the tokens that the model wrote in one turn of one rollout; numbered from 0.
    """

    teacher_entropy: torch.Tensor
    student_entropy: torch.Tensor
    teacher_log_probs: torch.Tensor
    student_log_probs: torch.Tensor
    rollout: torch.Tensor
    position: torch.Tensor
    turn: torch.Tensor

    def __len__(self) -> int:
        return self.teacher_entropy.numel()


def entropy_weights(entropy: torch.Tensor, mask: torch.Tensor, *, beta: float = 1.0) -> torch.Tensor:
    """The weights of the paper: `mean_one_weights` of `raw_entropy_weights`.

    Args:
        entropy: any shape, any float dtype; the teacher's entropy per token, in nats.
        mask: same shape; values outside it are never looked at.

    Returns:
        Same shape; float64 for float64 entropies, else float32 (a bfloat16 mean would be off by up to 0.4 %).

    Raises:
        ValueError: as the two functions, or shapes that differ.
    """
    if entropy.shape != mask.shape:
        raise ValueError(f"entropy {tuple(entropy.shape)} and mask {tuple(mask.shape)} must have the same shape.")
    raw = raw_entropy_weights(entropy[mask.bool()], beta=beta)
    return mean_one_weights(raw, mask).to(torch.promote_types(entropy.dtype, torch.float32))


def raw_entropy_weights(entropy: torch.Tensor, *, beta: float = 1.0) -> torch.Tensor:
    """Raw weights, larger where the teacher is sure: exp(-beta H), up to a factor that the mean of 1 takes out.

    Args:
        entropy: (T,), any float dtype; the teacher's entropy per token, in nats.
        beta: how sharply uncertain tokens are discounted; 0 gives the same weight to every token.

    Returns:
        (T,) float64 in (0, 1].

    Raises:
        ValueError: negative or non-finite beta, or a non-finite entropy.
    """
    if not 0.0 <= beta < float("inf"):
        raise ValueError(
            f"beta must be 0 or a positive number, not {beta}; a negative one would favour unsure teachers."
        )
    entropy = entropy.detach().double()
    bad = ~torch.isfinite(entropy)
    if bad.any():
        raise ValueError(f"{int(bad.sum())} of {entropy.numel()} entropies are not finite; check the teacher.")
    # A constant added to H cancels in the mean; with the minimum subtracted the largest weight before it is exactly 1.
    return torch.exp(-beta * (entropy - entropy.min())) if entropy.numel() else entropy


def mean_one_weights(raw: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Weights with mean 1 over the mask.

    Args:
        raw: (T,) for the T tokens of the mask; float, not negative, not all zero.
        mask: any shape, bool (or 0/1) with T ones; the SDPO-routed valid tokens.

    Returns:
        The shape of the mask, float64. Zero outside the mask; all zeros for an empty mask.

    Raises:
        ValueError: another shape, a weight that is negative or not finite, or no weight above zero.
    """
    mask = mask.bool()
    count = int(mask.sum())
    if not isinstance(raw, torch.Tensor) or raw.shape != (count,):
        found = tuple(raw.shape) if isinstance(raw, torch.Tensor) else type(raw).__name__
        raise ValueError(f"raw weights must be a tensor ({count},), one number per routed valid token, not {found}.")
    raw = raw.detach().double()
    weights = torch.zeros(mask.shape, dtype=torch.float64, device=mask.device)
    if count == 0:
        return weights
    bad = ~(torch.isfinite(raw) & (raw >= 0))
    if bad.any():
        raise ValueError(f"{int(bad.sum())} of {count} raw weights are negative or not finite.")
    mean = raw.mean()
    if not (mean > 0 and torch.isfinite(mean)):
        raise ValueError(f"the mean of the {count} raw weights is {float(mean)}: it must be a positive number.")
    weights[mask] = raw / mean
    return weights


def turn_numbers(mask: torch.Tensor) -> torch.Tensor:
    """Which turn of the model's each token is of: int64 of the mask's shape (j,), from 0; -1 where the mask is 0.

    Args:
        mask: (j,), 1 for the model's tokens, 0 for a tool's, which stand between two turns.
    """
    own = mask.bool()
    starts = own & ~torch.cat([own.new_zeros(1), own[:-1]])
    return torch.where(own, starts.long().cumsum(0) - 1, -1)


def turn_weights(turns: torch.Tensor) -> torch.Tensor:
    """Weights by which every turn counts alike, T / (U n) for T tokens, U turns, n tokens in the token's own.

    Args:
        turns: (T,) int64, equal for the tokens of one turn.

    Returns:
        (T,) float64 with mean 1.
    """
    _, inverse, counts = turns.unique(return_inverse=True, return_counts=True)
    return turns.numel() / (counts.numel() * counts.double())[inverse]
