"""Supervised warm-up: from random weights to a pupil that can also make use of a demonstration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from workflows.tiny.texts import Example


@dataclass(frozen=True)
class WarmUp:
    """Hyper-parameters; `teacher_batch` of the `batch` sequences have the teacher's form.

    The first `clean_steps` are without the pupil's doubts: clean facts are learnt several times faster than noisy ones.
    """

    steps: int = 360
    clean_steps: int = 220
    batch: int = 64
    teacher_batch: int = 16
    lr: float = 5e-3


def encode(examples: list[Example], tokenizer: PreTrainedTokenizerFast) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded token ids and labels (-100 where there is no loss), both [examples, length] int64.

    Prompt and pieces are encoded one by one, so no token may span two of them, or the model would see other tokens here
    than it writes in a rollout.
    """
    texts = [t for prompt, pieces in examples for t in (prompt, *(piece.text for piece in pieces))]
    encoded = iter(tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False))
    ids_B, labels_B = [], []
    for _, pieces in examples:
        ids = list(next(encoded).ids)
        labels = [-100] * len(ids)
        for piece in pieces:
            new = next(encoded).ids
            ids += new
            labels += new if piece.trained else [-100] * len(new)
        ids_B.append(ids)
        labels_B.append(labels)
    length = max(map(len, ids_B))
    pad = tokenizer.pad_token_id
    return (
        torch.tensor([ids + [pad] * (length - len(ids)) for ids in ids_B]),
        torch.tensor([labels + [-100] * (length - len(labels)) for labels in labels_B]),
    )


def token_loss_sum(model: Qwen3ForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy. Padding stands on the right, where causal attention never sees it: no mask is needed."""
    targets = labels[:, 1:]
    trained = targets != -100
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    return F.cross_entropy(model.lm_head(hidden[trained]), targets[trained], reduction="sum")


def warm_up(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    batches: Iterable[list[list[Example]]],
    settings: WarmUp,
    *,
    progress: bool = True,
) -> None:
    """Train in place, a step per entry of `batches`: lists of examples that are padded apart from each other."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, settings.steps, pct_start=0.1)
    model.train()
    bar = tqdm(batches, desc="warm-up", unit="step", total=settings.steps, disable=not progress)
    for parts in bar:
        encoded = [encode(examples, tokenizer) for examples in parts]
        tokens = sum(int((labels != -100).sum()) for _, labels in encoded)
        loss = torch.stack([token_loss_sum(model, ids, labels) for ids, labels in encoded]).sum() / tokens
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    model.eval()
