"""Batched sampling with a key-value cache, fast for tiny models on one core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, PreTrainedModel


@dataclass(frozen=True)
class Samples:
    """`n` responses in a row for every prompt; ids end with the end token, unless the limit came first."""

    responses: list[torch.Tensor]
    # Per response (j,) float32: log-probs at the sampling temperature.
    log_probs: list[torch.Tensor]


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    n: int,
    temperature: float,
    max_new_tokens: int,
    generator: torch.Generator,
) -> Samples:
    """Sample `n` responses per prompt, from the full distribution. Prompts must have one length: no padding is needed.

    Raises:
        ValueError: the prompts differ in length.
    """
    if len({len(prompt) for prompt in prompts}) != 1:
        raise ValueError("the sampler takes prompts of one length; group them by length first.")
    end = model.generation_config.eos_token_id
    cache = DynamicCache(config=model.config)
    logits = model(input_ids=torch.tensor(prompts), past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    cache.batch_repeat_interleave(n)
    logits = logits[:, -1].repeat_interleave(n, dim=0)
    rows = logits.shape[0]
    alive = torch.arange(rows)
    tokens = torch.full((rows, max_new_tokens), -1)
    scores = torch.zeros(rows, max_new_tokens)
    for position in range(max_new_tokens):
        log_probs = torch.log_softmax(logits / temperature, dim=-1)
        # The Gumbel trick: one draw per row from the softmax, in one vectorised pass.
        noise = torch.empty_like(log_probs).exponential_(generator=generator).log_()
        token = (log_probs - noise).argmax(-1)
        tokens[alive, position] = token
        scores[alive, position] = log_probs.gather(-1, token[:, None]).squeeze(-1)
        keep = token != end
        # Almost all responses have one length, so shrinking the batch pays only when many have ended.
        if not keep.all():
            if not keep.any():
                break
            alive, token = alive[keep], token[keep]
            cache.batch_select_indices(keep.nonzero().squeeze(-1))
        logits = model(input_ids=token[:, None], past_key_values=cache, use_cache=True).logits[:, -1]
    lengths = (tokens >= 0).sum(-1).tolist()
    return Samples(
        [row[:length] for row, length in zip(tokens, lengths, strict=True)],
        [row[:length] for row, length in zip(scores, lengths, strict=True)],
    )
