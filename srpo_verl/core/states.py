"""What a run remembers of its questions from step to step: right answers, and how often each was answered rightly.

A state is plain JSON, so that a checkpoint can hold it; each function makes the next one of the last and a step's
rollouts, whose `questions` name the same question in every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .prompts import visible_answer
from .rollouts import Rollouts

__all__ = ["past_answer", "smoothed_pass_rates", "with_answers", "with_verdicts"]


def with_answers(
    state: Mapping[str, Any], rollouts: Rollouts, *, per_question: int = 4, questions: int = 50_000
) -> dict[str, Any]:
    """The right answers of the last steps, newest first (DRIFT's success buffer, arXiv 2606.30345).

    Args:
        state: {question: [answer, ...]}, the question answered last at the end.
        per_question, questions: the most that are kept; the oldest go.
    """
    kept: dict[str, list[str]] = {question: list(answers) for question, answers in state.items()}
    for row in range(len(rollouts)):
        text, question = rollouts.responses[row], rollouts.questions[row]
        if not (bool(rollouts.correct[row]) and bool(rollouts.showable[row]) and text and question):
            continue
        older = [answer for answer in kept.pop(question, []) if answer != text]
        kept[question] = [text, *older][:per_question]
    return dict(list(kept.items())[-questions:])


def past_answer(state: Mapping[str, Any], rollouts: Rollouts, *, remove_thinking: bool = True) -> list[str | None]:
    """Per rollout the newest right answer to its question that is not word for word its own; None without one."""
    found: list[str | None] = []
    for question, own in zip(rollouts.questions, rollouts.responses, strict=True):
        text = next((answer for answer in state.get(question, ()) if answer != own), None)
        found.append(visible_answer(text) if text is not None and remove_thinking else text)
    return found


def with_verdicts(state: Mapping[str, Any], rollouts: Rollouts, *, decay: float = 0.85) -> dict[str, Any]:
    """Right and wrong answers per question, each step's worth `decay` of the one after it (DRIFT's routing).

    Args:
        state: {question: [right, wrong, step of the last answer]}.
    """
    kept = {question: list(counts) for question, counts in state.items()}
    fresh: dict[str, list[float]] = {}
    for question, correct in zip(rollouts.questions, rollouts.correct.tolist(), strict=True):
        counts = fresh.setdefault(question, [0.0, 0.0])
        counts[0 if correct else 1] += 1.0
    for question, (right, wrong) in fresh.items():
        before = kept.get(question, [0.0, 0.0, rollouts.step])
        factor = decay ** max(rollouts.step - before[2], 0)
        kept[question] = [factor * before[0] + right, factor * before[1] + wrong, rollouts.step]
    return kept


def smoothed_pass_rates(
    state: Mapping[str, Any], rollouts: Rollouts, *, decay: float = 0.85, confidence: float = 8.0
) -> torch.Tensor:
    """(N,) float64: the pass rate of each rollout's question, this step included.

    (right + 1) / (right + wrong + 2), drawn to 1/2 while there are few answers: n / (n + confidence) of it counts.
    """
    now = with_verdicts(state, rollouts, decay=decay)
    rates = []
    for question in rollouts.questions:
        right, wrong, _ = now[question]
        trust = (right + wrong) / (right + wrong + confidence)
        rates.append(trust * (right + 1.0) / (right + wrong + 2.0) + (1.0 - trust) * 0.5)
    return torch.tensor(rates, dtype=torch.float64)
