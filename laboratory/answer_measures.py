"""What a policy's answers to a set of questions are worth beyond their accuracy: pass@k, maj@k and their diversity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb
from statistics import fmean

from laboratory.measure import Answers
from workflows.evaluate.metrics import majority, pass_at_k
from workflows.tiny.task import ANSWER_MARK

# The k of pass@k beside that of all answers, and how many right answers diversity draws.
PASS_K, DRAWN = 4, 4


def answer_measures(answers: Answers) -> dict[str, float]:
    """Means over questions, for n answers to each; the keys are those of an `eval` line of a record.

    `pass@4` and `pass@n` are unbiased (arXiv 2107.03374), `maj@n` votes on what stands behind the last `####`.
    `distinct` is how many texts differ among four answers drawn without replacement from a question's answers by a
    true derivation; its mean is over the `distinct_questions` that have four of them, and absent if there are none.
    """
    n = answers.correct.shape[1]
    right = answers.correct.sum(1).tolist()
    groups = [answers.texts[start : start + n] for start in range(0, len(answers.texts), n)]
    votes = [
        majority([stated(text) for text in texts], verdicts)
        for texts, verdicts in zip(groups, answers.correct.float().tolist(), strict=True)
    ]
    true = [
        [text for text, strict in zip(texts, of_question, strict=True) if strict]
        for texts, of_question in zip(groups, answers.strict.tolist(), strict=True)
    ]
    distinct = [expected_distinct(texts, DRAWN) for texts in true if len(texts) >= DRAWN]
    found = {f"pass@{k}": fmean(pass_at_k(n, correct, k) for correct in right) for k in {min(PASS_K, n), n}}
    found |= {f"maj@{n}": fmean(votes), "distinct_questions": len(distinct)}
    return found | ({"distinct": fmean(distinct)} if distinct else {})


def stated(text: str) -> str:
    """The answer that a text states, empty if it states none."""
    return text.rpartition(ANSWER_MARK)[2].strip() if ANSWER_MARK in text else ""


def expected_distinct(texts: Sequence[str], drawn: int) -> float:
    """Expected number of different texts among `drawn` of them, drawn without replacement (rarefaction).

    Raises:
        ValueError: fewer texts than are drawn, or none drawn.
    """
    if not 1 <= drawn <= len(texts):
        raise ValueError(f"{drawn} texts cannot be drawn from {len(texts)}.")
    every = comb(len(texts), drawn)
    return sum(1.0 - comb(len(texts) - count, drawn) / every for count in Counter(texts).values())
