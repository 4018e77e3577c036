"""Selected rows of (T, V) logits, a piece at a time.

What is done with a piece should be in the cache while it is done, and no float32 copy of all logits should exist. On a
CPU that asks for pieces of a MB, since memory fresh from the system is dearer than the arithmetic; on an
accelerator for pieces large enough to keep it busy.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

__all__ = ["check_selection", "compute_dtype", "pieces", "rows_at_once", "slices", "without_autocast"]

# Elements of a piece on a CPU: 1 MB in float32, which malloc hands out again without asking the system for new pages.
_CPU_ELEMENTS = 2**18


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype the maths on logits of `dtype` runs in: float64 stays, everything else becomes float32."""
    return torch.promote_types(dtype, torch.float32)


def without_autocast(tensor: torch.Tensor) -> torch.autocast:
    """A context in which operations on the tensor's device keep the dtype that they are given.

    verl runs the forward pass, loss function included, inside bf16 autocast. Its list of operations for low precision
    holds more than matrix products of a model: `torch.linalg.vecdot` of a float32 distribution is off by 1e-2.
    """
    return torch.autocast(tensor.device.type, enabled=False)


def check_selection(logits: torch.Tensor, rows: torch.Tensor, chunk_size: int) -> None:
    """Refuse anything but float logits (T, V), integer rows (R,) and a positive chunk size."""
    if logits.dim() != 2 or not logits.is_floating_point():
        raise ValueError(f"logits must be a float tensor (T, V), not {logits.dtype} {tuple(logits.shape)}; flatten it.")
    if rows.dim() != 1 or rows.dtype != torch.int64:
        raise ValueError(
            f"rows must be int64 (R,), not {rows.dtype} {tuple(rows.shape)}; a mask gives it by .nonzero()[:, 0]."
        )
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, not {chunk_size}.")


def rows_at_once(logits: torch.Tensor, chunk_size: int) -> int:
    """Rows of a piece: `chunk_size`, on a CPU fewer if the vocabulary is large."""
    if logits.device.type != "cpu":
        return chunk_size
    return max(1, min(chunk_size, _CPU_ELEMENTS // max(logits.shape[1], 1)))


def slices(logits: torch.Tensor, chunk_size: int) -> list[slice]:
    """All rows, a piece at a time."""
    size, count = rows_at_once(logits, chunk_size), logits.shape[0]
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def pieces(logits: torch.Tensor, rows: torch.Tensor, chunk_size: int) -> Iterator[tuple[slice, torch.Tensor]]:
    """`(part, logits[rows[part]])`, part after part of `rows`: a view where the rows follow each other, else a copy."""
    logits = logits.detach()
    count, size = rows.shape[0], rows_at_once(logits, chunk_size)
    # breaks[i]: how often, up to row i, a row did not follow the one before it.
    breaks = torch.zeros(count, dtype=torch.int64, device=rows.device)
    torch.cumsum(rows.diff() != 1, dim=0, out=breaks[1:])
    # Together: a device is waited for once.
    places, breaks = torch.stack([rows, breaks]).tolist()
    for start in range(0, count, size):
        end = min(start + size, count)
        if breaks[start] == breaks[end - 1]:
            yield slice(start, end), logits[places[start] : places[start] + end - start]
        else:
            yield slice(start, end), logits[rows[start:end]]
