"""The same step by plain loops: one rollout at a time, an unwrapped HF model, formulas straight from the paper."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from tests.training.rows import Batch


def load(folder: Path, weights: dict[str, torch.Tensor] | None = None):
    """The model in float64, with other weights if given."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").double()
    if weights is not None:
        model.load_state_dict({name: value.double() for name, value in weights.items()}, strict=False)
    return model.train()


def response_logits(model, prompt: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
    """(response length, V) logits that predict the response."""
    ids = torch.cat([prompt, response])
    return model(input_ids=ids[None]).logits[0, prompt.numel() - 1 : -1]


def loss(
    student,
    teacher,
    batch: Batch,
    *,
    k: int,
    alpha: float = 0.5,
    beta: float = 1.0,
    tail: bool = True,
    distilled_only: bool = False,
) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
    """The objective over the whole batch, on policy; and the teacher's entropies per routed row.

    `distilled_only`: SDPO's, over its own tokens alone.
    """
    routed = set(batch.plan.routed_rows())
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    distilled, entropies = [], {}
    for row in range(len(batch)):
        prompt, response, mask = batch.prompts[row], batch.responses[row], batch.masks[row]
        tokens += int(mask.sum())
        logits = response_logits(student, prompt, response)
        log_probs = logits.log_softmax(-1)
        if row not in routed:
            for t in range(response.numel()):
                # On policy the ratio is 1 in value; the clip is inactive.
                log_prob = log_probs[t, response[t]]
                ratio = (log_prob - log_prob.detach()).exp()
                advantage = batch.advantages[row][t].double()
                total = total - ratio * advantage * batch.importance[row][t].double() * mask[t]
            continue
        with torch.no_grad():
            q = response_logits(teacher, batch.teacher_prompts[row], response).log_softmax(-1)
        entropies[row] = -(q.exp() * q).sum(-1)
        for t in range(response.numel()):
            if mask[t]:
                ids = log_probs[t].detach().topk(k).indices
                pieces = [log_probs[t][ids].exp(), q[t][ids].exp()]
                if tail:
                    pieces = [torch.cat([p, (1 - p.sum())[None]]) for p in pieces]
                distilled.append((_jsd(pieces[0], pieces[1], alpha), entropies[row][t], batch.importance[row][t]))
    weights = [math.exp(-beta * float(entropy)) for _, entropy, _ in distilled]
    mean = sum(weights) / max(len(weights), 1)
    distillation = torch.zeros((), dtype=torch.float64)
    for (divergence, _, importance), weight in zip(distilled, weights, strict=True):
        distillation = distillation + divergence * weight / mean * importance.double()
    if distilled_only:
        return distillation / len(distilled), entropies
    return (total + distillation) / tokens, entropies


def _jsd(student: torch.Tensor, teacher: torch.Tensor, alpha: float) -> torch.Tensor:
    def kl(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a * (a / b).log()).sum()

    if alpha == 0.0:
        return kl(teacher, student)
    if alpha == 1.0:
        return kl(student, teacher)
    middle = (1 - alpha) * student + alpha * teacher
    return (1 - alpha) * kl(student, middle) + alpha * kl(teacher, middle)
