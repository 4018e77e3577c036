"""What stands in for flash-attn where there is no GPU: the call that verl wraps with the all-to-all of Ulysses."""

from __future__ import annotations

import torch

NAME = "packed_for_tests"
OVERRIDE = f"actor_rollout_ref.model.override_config.attn_implementation={NAME}"


def install() -> None:
    """In this process: `attn_implementation=NAME` takes flash-attn's way through transformers and verl."""
    from transformers import AttentionInterface
    from transformers.integrations.flash_attention import flash_attention_forward
    from verl.models.transformers import monkey_patch

    AttentionInterface.register(NAME, flash_attention_forward)
    monkey_patch._flash_attention_forward = packed_attention


def packed_attention(query, key, value, attention_mask, query_length, *, position_ids, softmax_scale, **_):
    """Causal attention (1, tokens, heads, width) within each packed sequence; `position_ids` is 0 where one begins."""
    assert attention_mask is None
    assert query.shape[1] == position_ids.shape[1] == query_length
    sequence = (position_ids[0] == 0).cumsum(0)
    visible = (sequence[:, None] == sequence[None, :]).tril()
    heads = (tensor.transpose(1, 2) for tensor in (query, key, value))
    out = torch.nn.functional.scaled_dot_product_attention(
        *heads, attn_mask=visible, scale=softmax_scale, enable_gqa=True
    )
    return out.transpose(1, 2)
