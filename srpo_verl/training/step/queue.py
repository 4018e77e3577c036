"""Reading and writing fields of a batch in TransferQueue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta


def get_fields(batch: KVBatchMeta, names: Sequence[str]) -> TensorDict:
    """The named fields of every row; a name that some row lacks is left out by TransferQueue, see `fields.require`."""
    return tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(names))


def put_fields(batch: KVBatchMeta, fields: Mapping[str, torch.Tensor]) -> KVBatchMeta:
    """Write tensors (first dimension: rows of the batch). The returned meta names all fields that the rows have."""
    return tq.kv_batch_put(
        keys=batch.keys,
        partition_id=batch.partition_id,
        fields=TensorDict(dict(fields), batch_size=len(batch)),
    )


def entries() -> int:
    """Keys in TransferQueue, of all partitions."""
    return sum(map(len, (tq.kv_list() or {}).values()))
