"""What travels from the full-vocabulary logits to the loss: top-K ids, log-probs at them, and the teacher's entropy.

SRPO compares student and teacher on the student's top-K tokens (arXiv 2604.02288, Table 3: K = 100) and weights tokens
by the teacher's entropy H = -sum_v q(v) log q(v) (section 3.2). The entropy is over the FULL vocabulary: on the top K
and a tail it hardly varies, and the weighting would be nearly off.

All functions read the selected rows once, a piece at a time (`rows.py`), so that no float32 copy of the logits exists.
None of them is differentiable: they make targets.
"""

from __future__ import annotations

from types import ModuleType

import torch

from .kernel_choice import kernels_for
from .listed_log_probs import RunningSoftmax
from .rows import check_selection, compute_dtype, pieces, without_autocast

__all__ = ["student_topk", "target_statistics", "topk_targets", "trust_region_logits"]

# Ids per block in the search for the top K.
_BLOCK = 64


@torch.no_grad()
def student_topk(logits: torch.Tensor, rows: torch.Tensor, k: int, *, chunk_size: int = 256) -> torch.Tensor:
    """The K most probable token ids of each selected row, most probable first.

    Args:
        logits: (T, V), any float dtype.
        rows: (R,), int64.
        k: K, at most V.
        chunk_size: rows per piece; changes memory only.

    Returns:
        (R, K), int64.

    Raises:
        ValueError: k outside [1, V], or shapes that do not fit.
    """
    check_selection(logits, rows, chunk_size)
    _check_k(k, logits.shape[1])
    ids = torch.empty((rows.shape[0], k), dtype=torch.int64, device=logits.device)
    for part, chunk in pieces(logits, rows, chunk_size):
        ids[part] = _topk(chunk, k)
    return ids


@torch.no_grad()
def target_statistics(
    logits: torch.Tensor, rows: torch.Tensor, topk_ids: torch.Tensor, *, chunk_size: int = 256
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs at given ids and the entropy, both over the full vocabulary.

    Args:
        logits: (T, V), any float dtype; the teacher's, divided by the rollout temperature.
        rows: (R,), int64.
        topk_ids: (R, K), int64; usually the student's top K.
        chunk_size: rows per piece; changes memory only.

    Returns:
        `(log_probs, entropy)`: (R, K) and (R,), float64 for float64 logits, else float32; natural logarithms. Logits
        of minus infinity are tokens of probability zero and contribute nothing to the entropy.

    Raises:
        ValueError: shapes that do not fit, K > V.
    """
    check_selection(logits, rows, chunk_size)
    if topk_ids.dim() != 2 or topk_ids.shape[0] != rows.shape[0]:
        raise ValueError(f"topk_ids must be (R, K) with R = {rows.shape[0]}, not {tuple(topk_ids.shape)}.")
    _check_k(topk_ids.shape[1], logits.shape[1])
    if kernels := kernels_for(logits):
        return _by_kernel(kernels, logits.detach(), rows, topk_ids)
    log_probs, entropy = _empty_targets(logits, rows, topk_ids.shape[1])
    for part, chunk in pieces(logits, rows, chunk_size):
        log_probs[part], entropy[part] = _statistics(chunk, topk_ids[part])
    return log_probs, entropy


@torch.no_grad()
def topk_targets(
    logits: torch.Tensor, rows: torch.Tensor, k: int, *, also: torch.Tensor | None = None, chunk_size: int = 256
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`student_topk` and `target_statistics` of the same logits in one pass: targets on the teacher's own support.

    Args:
        also: (R, M), int64; ids whose log-probs are wanted too.

    Returns:
        `(ids, log_probs, entropy)`: (R, K) int64, (R, K + M) with those of `also` last, (R,); dtypes as for
        `target_statistics`.

    Raises:
        ValueError: k outside [1, V], or shapes that do not fit.
    """
    check_selection(logits, rows, chunk_size)
    _check_k(k, logits.shape[1])
    ids = torch.empty((rows.shape[0], k), dtype=torch.int64, device=logits.device)
    also = ids[:, :0] if also is None else also
    if kernels := kernels_for(logits):
        ids = student_topk(logits, rows, k, chunk_size=chunk_size)
        return ids, *_by_kernel(kernels, logits.detach(), rows, torch.cat([ids, also], dim=-1))
    log_probs, entropy = _empty_targets(logits, rows, k + also.shape[1])
    for part, chunk in pieces(logits, rows, chunk_size):
        ids[part] = _topk(chunk, k)
        log_probs[part], entropy[part] = _statistics(chunk, torch.cat([ids[part], also[part]], dim=-1))
    return ids, log_probs, entropy


def trust_region_logits(reference: torch.Tensor, student: torch.Tensor, *, mix: float) -> torch.Tensor:
    """The trust-region teacher of SDPO (arXiv 2601.20802): (1 - mix) reference + mix student, on logits.

    A geometric mean of the two distributions, hence a teacher that cannot leave the reference's neighbourhood.

    Args:
        reference, student: same shape, any float dtype.
        mix: in [0, 1]; 0 is the reference, 1 the student.

    Returns:
        The same shape, in the wider of the two dtypes; the student is detached.

    Raises:
        ValueError: mix outside [0, 1], or shapes that differ.
    """
    if not 0.0 <= mix <= 1.0:
        raise ValueError(f"mix must lie in [0, 1], not {mix}.")
    if reference.shape != student.shape:
        raise ValueError(
            f"reference {tuple(reference.shape)} and student {tuple(student.shape)} logits must have the same shape."
        )
    dtype = torch.promote_types(reference.dtype, student.dtype)
    reference, student = reference.detach().to(dtype), student.detach().to(dtype)
    # The ends are exact, and 0 * -inf (a masked token on the other side) must not become NaN.
    if mix == 0.0:
        return reference
    if mix == 1.0:
        return student
    return (1.0 - mix) * reference + mix * student


def _topk(chunk: torch.Tensor, k: int) -> torch.Tensor:
    """(c, V) -> (c, K) ids of the K largest, largest first; the work of `topk` on a fraction of V.

    The vocabulary is cut into blocks, each of which is every n-th id. The K largest values lie in the K blocks with the
    largest maxima: a block outside has K values before its own, one in each of those.
    """
    vocabulary = chunk.shape[-1]
    blocks = vocabulary // _BLOCK
    if blocks < 4 * k:
        return chunk.topk(k, dim=-1).indices
    covered = blocks * _BLOCK
    maxima = chunk[:, :covered].unflatten(-1, (_BLOCK, blocks)).amax(-2)
    chosen = maxima.topk(k, dim=-1, sorted=False).indices.unsqueeze(-2)
    candidates = (chosen + blocks * torch.arange(_BLOCK, device=chunk.device).unsqueeze(-1)).flatten(1)
    rest = torch.arange(covered, vocabulary, device=chunk.device).expand(chunk.shape[0], -1)
    candidates = torch.cat([candidates, rest], dim=-1)
    return candidates.gather(-1, chunk.gather(-1, candidates).topk(k, dim=-1).indices)


def _statistics(chunk: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(c, V) logits -> log-probs (c, K) at the ids, entropy (c,).

    With x shifted to maximum 0 and Z = sum_v exp x_v: the largest probability is 1 / Z, and H = log Z - sum_v p_v x_v.
    """
    values = chunk.to(compute_dtype(chunk.dtype))
    shifted = values - values.amax(dim=-1, keepdim=True)
    probabilities = torch.softmax(shifted, dim=-1)
    log_z = -probabilities.amax(dim=-1).log()
    with without_autocast(values):
        entropy = log_z - torch.linalg.vecdot(probabilities, shifted)
    masked = entropy.isnan()
    if masked.any():
        # Tokens of probability zero: 0 * -inf. entr(p) = -p log p, and 0 at p = 0.
        entropy[masked] = torch.special.entr(probabilities[masked]).sum(-1)
    return shifted.gather(-1, ids) - log_z.unsqueeze(-1), entropy


def _by_kernel(
    kernels: ModuleType, logits: torch.Tensor, rows: torch.Tensor, ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """`_statistics` of the selected rows, where they stand."""
    sums = RunningSoftmax(rows.shape[0], compute_dtype(logits.dtype), logits.device)
    kernels.add_to_softmax(logits, sums.maximum, sums.z, sums.u, rows=rows, with_entropy=True)
    return sums.log_probs(logits[rows.unsqueeze(-1), ids]), sums.entropy()


def _empty_targets(logits: torch.Tensor, rows: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    dtype = compute_dtype(logits.dtype)
    return logits.new_empty((rows.shape[0], k), dtype=dtype), logits.new_empty(rows.shape[0], dtype=dtype)


def _check_k(k: int, vocabulary: int) -> None:
    if not 1 <= k <= vocabulary:
        raise ValueError(
            f"K must lie between 1 and the vocabulary size {vocabulary}, not {k}; lower the top-K setting."
        )
