"""Passes over logits as Triton kernels, for CUDA: what `RunningSoftmax.add` and `everywhere` do, one read each.

PyTorch's operations go over a piece of the logits several times, through float32 copies of it. Here a program owns a
row (or a part of it): it reads each logit once and keeps the rest in registers, so no piece is copied. Numbers are
accumulated in the dtype of the result, float32 or float64, as in the plain code, which stays the reference.

The search for the top K has no kernel: its one read of the logits is an `amax` over blocks, which PyTorch does at the
speed of the memory, and what follows looks at 1/64 of them.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["add_to_softmax", "softmax_gradient"]

# Columns that a program has in its registers, and warps for that: 16 bytes per thread and load in bfloat16.
_BLOCK, _WARPS = 4096, 16
_FAR = tl.constexpr(-1e4)  # as in listed_log_probs


def add_to_softmax(
    logits: torch.Tensor,
    maximum: torch.Tensor,
    z: torch.Tensor,
    u: torch.Tensor,
    *,
    rows: torch.Tensor | None = None,
    with_entropy: bool = False,
) -> None:
    """Take logits into the running maximum, Z and U of `RunningSoftmax`, in place.

    Args:
        logits: (T, v), any float dtype, any distance between rows.
        maximum, z, u: (R,), contiguous, float32 or float64.
        rows: int64 (R,); the rows of the logits that are meant, by default all, R = T.
        with_entropy: also U.
    """
    if not len(maximum):
        return  # CUDA has no grid of zero programs
    logits = _by_columns(logits)
    with torch.cuda.device_of(logits):
        _add_to_softmax[(len(maximum),)](
            logits,
            maximum if rows is None else rows,
            maximum,
            z,
            u,
            logits.stride(0),
            logits.shape[1],
            SELECTED=rows is not None,
            ENTROPY=with_entropy,
            BLOCK=_block(logits),
            num_warps=_WARPS,
        )


def softmax_gradient(
    logits: torch.Tensor,
    log_z: torch.Tensor,
    total: torch.Tensor,
    of_entropy: tuple[torch.Tensor, torch.Tensor] | None,
    *,
    out: torch.Tensor,
) -> None:
    """-total p - g_H p (log p + H) of logits (T, v) into `out`, which may be `logits`; as `everywhere`.

    Args:
        log_z: (T, 2), m and log Z.
        total: (T,).
        of_entropy: g_H and H, (T,) each, or None.
    """
    source = logits if out.data_ptr() == logits.data_ptr() else _by_columns(logits)
    if out.stride(-1) != 1 or (source is out and source.stride(-1) != 1):
        raise ValueError("the gradient's columns must follow each other in memory")
    if not len(total):
        return
    by_entropy, entropy = (total, total) if of_entropy is None else (value.contiguous() for value in of_entropy)
    block = _block(logits)
    with torch.cuda.device_of(logits):
        _softmax_gradient[(len(total), triton.cdiv(logits.shape[1], block))](
            source,
            log_z.contiguous(),
            total.contiguous(),
            by_entropy,
            entropy,
            out,
            source.stride(0),
            out.stride(0),
            logits.shape[1],
            ENTROPY=of_entropy is not None,
            BLOCK=block,
            num_warps=_WARPS,
        )


@triton.jit
def _add_to_softmax(
    logits,
    rows,
    maximum,
    z_sum,
    u_sum,
    distance,
    columns,
    SELECTED: tl.constexpr,
    ENTROPY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64)
    row = tl.load(rows + place) if SELECTED else place
    m = tl.load(maximum + place)
    z = tl.load(z_sum + place)
    u = tl.load(u_sum + place)
    for start in range(0, columns, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(logits + row * distance + at, mask=at < columns, other=float("-inf")).to(m.dtype)
        new = tl.maximum(m, tl.max(x, 0))
        # Before the first finite logit of a row there is nothing to rescale: there its maximum is minus infinity.
        down = tl.maximum(tl.where(m == new, 0.0, m - new), _FAR)
        shifted = x - tl.where(new == float("-inf"), 0.0, new)
        exponentials = tl.exp(shifted)
        if ENTROPY:
            # A token of probability zero: 0 * -inf.
            u = tl.exp(down) * (u + z * down) + tl.sum(exponentials * tl.maximum(shifted, _FAR), 0)
        z = tl.exp(down) * z + tl.sum(exponentials, 0)
        m = new
    tl.store(maximum + place, m)
    tl.store(z_sum + place, z)
    tl.store(u_sum + place, u)


@triton.jit
def _softmax_gradient(
    logits,
    log_z,
    totals,
    by_entropy,
    entropies,
    out,
    distance,
    out_distance,
    columns,
    ENTROPY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < columns
    m = tl.load(log_z + 2 * row)
    log_sum = tl.load(log_z + 2 * row + 1)
    slope = tl.load(totals + row)
    x = tl.load(logits + row * distance + at, mask=inside, other=float("-inf")).to(m.dtype)
    log_p = x - m - log_sum
    p = tl.exp(log_p)
    if ENTROPY:
        slope += tl.load(by_entropy + row) * (tl.maximum(log_p, _FAR) + tl.load(entropies + row))
    tl.store(out + row * out_distance + at, (-slope * p).to(out.dtype.element_ty), mask=inside)


def _by_columns(logits: torch.Tensor) -> torch.Tensor:
    """With columns that follow each other, as a model's logits have them."""
    return logits if logits.stride(-1) == 1 else logits.contiguous()


def _block(logits: torch.Tensor) -> int:
    return min(_BLOCK, triton.next_power_of_2(logits.shape[1]))
