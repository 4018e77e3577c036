"""Ranks that share rows (Ulysses): which of the tokens have their logits here, and all from the parts of all.

With Ulysses sequence parallelism over n ranks, verl pads the packed tokens of a micro-batch at their end to a multiple
of n, and rank r of the n has the logits of the r-th part. The micro-batch itself, its fields included, is the same on
all n. A response may lie in several parts, and a part may hold no selected token at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from verl.utils.ulysses import get_ulysses_sequence_parallel_group

T = TypeVar("T")


@dataclass(frozen=True)
class LocalTokens:
    """The selected tokens whose logits are here.

    Attributes:
        rows: (R,) int64, rows of this rank's logits.
        kept: what takes their values out of those of the whole selection: `values[kept]` is (R, ...).
        count: tokens of the whole selection.
        group: the ranks that hold the other parts; None if all is here.
    """

    rows: torch.Tensor
    kept: torch.Tensor | slice
    count: int
    group: Any

    def whole(self, parts: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Values of the whole selection (count, ...), on every rank, from those of `rows` (R, ...) here.

        Collective, whether or not there are rows here: all ranks of the group must come with the same names.
        """
        if self.group is None:
            return dict(parts)
        found = {}
        for name, values in parts.items():
            # Each token is of one rank: the sum only adds zeros to it.
            found[name] = values.new_zeros((self.count, *values.shape[1:])).index_copy_(0, self.kept, values)
            torch.distributed.all_reduce(found[name], group=self.group)
        return found


def local_tokens(logits: torch.Tensor, positions: torch.Tensor, sequences: torch.Tensor) -> LocalTokens:
    """The part of a selection of packed tokens that belongs to this rank.

    Args:
        logits: (L, V), this rank's, of `sequences`.
        positions: (count,) int64, places in the whole packed micro-batch; see `prediction_positions`.
        sequences: nested (n, j), the micro-batch.

    Raises:
        RuntimeError: `logits` are not the part that this rank should have.
    """
    group, length = get_ulysses_sequence_parallel_group(), logits.shape[0]
    ranks = 1 if group is None else torch.distributed.get_world_size(group)
    packed = sequences.values().shape[0]
    if length != -(-packed // ranks):
        raise RuntimeError(
            f"{packed} packed tokens on {ranks} rank(s) are not logits of {length} tokens on each: verl pads or splits "
            "them in a way that srpo_verl does not know; `python -m srpo_verl.verl_names` tells what has changed"
        )
    if ranks == 1:
        return LocalTokens(positions, slice(None), positions.shape[0], None)
    rows = positions - torch.distributed.get_rank(group) * length
    kept = ((rows >= 0) & (rows < length)).nonzero().squeeze(-1)
    return LocalTokens(rows[kept], kept, positions.shape[0], group)


def local_labels(local: torch.Tensor, sequences: torch.Tensor) -> torch.Tensor:
    """The token that each packed position here predicts, as verl has it; of a sequence's last position any.

    Args:
        local: (L, ...), this rank's logits or hidden states, of `sequences`.
        sequences: nested (n, j), the micro-batch.

    Returns:
        int64 (L,)
    """
    group, length = get_ulysses_sequence_parallel_group(), local.shape[0]
    labels = torch.roll(sequences.values(), -1).long()
    if group is None:
        return labels
    start = torch.distributed.get_rank(group) * length
    ranks = torch.distributed.get_world_size(group)
    return torch.nn.functional.pad(labels, (0, ranks * length - labels.shape[0]))[start : start + length]


def of_answering_rank(value: T, group: Any) -> T:
    """The value of the first rank of `group`, the only one that verl lets return an output; `value` if it is None.

    Collective.
    """
    if group is None:
        return value
    found = [value]
    torch.distributed.broadcast_object_list(found, group=group, group_src=0)
    return found[0]
