"""A step to look at: one file with the routing of its batch and every token of a few groups (`srpo inspect` reads it).

`<srpo.inspect_dir>/<step>.json.gz`, one JSON object, whole or absent. Every rollout of the batch has a line on its
routing, and what other routes and betas need: the sums of exp(-beta H) over its tokens for each beta of a grid, out of
which the mean over ANY set of distilled rollouts follows. Rollouts of at most `srpo.inspect_groups` groups have their
tokens too. No verl, no Ray.

Tokens that the teacher was asked about have the divergence of the loss, by the loss's own function with the weights
that the batch's first update began from. Where no divergence is in the loss, since the teacher enters as an advantage,
they have one over two buckets instead, which both sides' log-probs of the sampled token give: see
`two_bucket_divergence`. The key `divergence` says which of both it is.
"""

from __future__ import annotations

import gzip
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from srpo_verl.base.files import write_atomically
from srpo_verl.config import SRPOConfig
from srpo_verl.core import TeacherPrompt, generalized_jsd, topk_divergence
from srpo_verl.training.step.dumped_routes import rollout_line, shares_of_routes
from srpo_verl.training.step.step_signals import StepView
from srpo_verl.training.step.teacher_prompts import LeftOut
from srpo_verl.training.step.token_texts import TokenTexts

logger = logging.getLogger(__name__)

VERSION = 2
BETAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


@dataclass(frozen=True)
class Looked:
    """What is dumped of a step besides its view; sequences by row of the batch.

    Attributes:
        scalar: (n,) the baseline's advantage of each row, whatever its route.
        prompts: the teacher's, by row that it was asked about.
        left_out: rows that no teacher prompt could be made for.
        questions: token ids of the student's prompt, of the rows that `groups_to_dump` named.
        signals: of these rows by name ("student_entropy", "student_log_prob"), what is known of any rollout.
        divergence: of these rows, of those that the teacher was asked about: the loss's, (j,). None: the loss has none.
    """

    scalar: torch.Tensor
    prompts: Mapping[int, TeacherPrompt]
    left_out: LeftOut = field(default_factory=LeftOut)
    questions: Mapping[int, Sequence[int]] = field(default_factory=dict)
    signals: Mapping[str, Mapping[int, torch.Tensor]] = field(default_factory=dict)
    divergence: Mapping[int, torch.Tensor] | None = None


def groups_to_dump(view: StepView, count: int) -> dict[str, list[int]]:
    """Rows by uid of at most `count` groups: those with a distilled rollout first, then by uid."""
    groups: dict[str, list[int]] = {}
    for row, rollout in enumerate(view.plan.rollouts):
        if not rollout.padding:
            groups.setdefault(rollout.session[0], []).append(row)
    routed = view.plan.routed.tolist()
    order = sorted(groups, key=lambda uid: (not any(routed[row] for row in groups[uid]), uid))
    keys = view.plan.rollouts
    return {uid: sorted(groups[uid], key=lambda row: (keys[row].session, keys[row].index)) for uid in order[:count]}


def two_bucket_divergence(student: torch.Tensor, teacher: torch.Tensor, *, alpha: float) -> torch.Tensor:
    """Divergence over two buckets, the sampled token and all others: at most that over the full vocabulary.

    Merging buckets never raises a generalised Jensen-Shannon divergence. So where the sampled token is among the top K
    it is at most that over these and a tail bucket, too: at most the loss's with `divergence: jsd`.

    Args:
        student, teacher: (j,) log-probs of the sampled tokens, in nats; the student's old ones.
        alpha: `srpo.alpha`.
    """
    return topk_divergence(student.unsqueeze(-1), teacher.unsqueeze(-1), divergence=generalized_jsd(alpha))


def dump_step(folder: str, view: StepView, looked: Looked, srpo: SRPOConfig) -> Path | None:
    """Write the step's file; None, and a warning in the log, if the disk does not take it: training goes on."""
    path = Path(folder) / f"{view.plan.step}.json.gz"
    text = json.dumps(step_contents(view, looked, srpo), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, gzip.compress(text.encode(), compresslevel=6, mtime=0))
    except OSError as error:
        logger.warning("srpo: %s could not be written for srpo inspect, training goes on: %s", path, error)
        return None
    return path


def step_contents(view: StepView, looked: Looked, srpo: SRPOConfig) -> dict[str, Any]:
    """What the file holds, as JSON types; numbers have 6 digits, one that is not finite is None."""
    plan, tokens = view.plan, view.tokens
    groups = groups_to_dump(view, srpo.inspect_groups)
    place = {row: n for n, row in enumerate(tokens.rows)} if tokens else {}
    betas = sorted({*BETAS, srpo.beta})
    entropies = [tokens.teacher_entropy[n][view.masks[row] > 0] for row, n in place.items()] if tokens else []
    floor = min((float(row.min()) for row in entropies if row.numel()), default=0.0)
    shares = shares_of_routes(plan, srpo, looked.left_out)
    lines = []
    for row, rollout in enumerate(plan.rollouts):
        if rollout.padding:
            continue
        line = rollout_line(plan, row, srpo, looked.left_out, view.signals.advantages[row])
        line["shares"] = {name: share[row] for name, share in shares.items()}
        line["advantage"] = _number(looked.scalar[row])
        line["tokens"] = int((view.masks[row] > 0).sum())
        if row in place:
            entropy = tokens.teacher_entropy[place[row]][view.masks[row] > 0].double()  # type: ignore[union-attr]
            line["sums"] = [_number(torch.exp(-beta * (entropy - floor)).sum()) for beta in betas]
        lines.append(line)
    prompts: dict[int, int] = {}
    texts: list[str] = []
    texts_of = TokenTexts(view.decode)
    detailed = []
    for rows in groups.values():
        for row in rows:
            prompt = looked.prompts.get(row)
            if prompt is not None and id(prompt) not in prompts:
                prompts[id(prompt)] = len(texts)
                texts.append(view.decode(torch.tensor(prompt.input_ids)))
            detailed.append(
                {
                    "row": row,
                    "prompt": prompts[id(prompt)] if prompt is not None else None,
                    "shown_text": plan.shown(row),
                    "ids": view.responses[row].tolist(),
                    "pieces": texts_of.of(view.responses[row].tolist()),
                    "mask": [int(value > 0) for value in view.masks[row].tolist()],
                    "signals": _signals(view, looked, srpo, row, place.get(row)),
                }
            )
    questions = {
        uid: view.decode(torch.tensor(list(looked.questions[rows[0]])))
        for uid, rows in groups.items()
        if rows[0] in looked.questions
    }
    return {
        "version": VERSION,
        "step": plan.step,
        "settings": _settings(srpo, plan.step),
        "divergence": "two_buckets" if looked.divergence is None else "loss",
        "betas": betas,
        "entropy_floor": floor,
        "routes": list(shares),
        "rollouts": lines,
        "groups": [{"uid": uid, "question": questions.get(uid), "rows": rows} for uid, rows in groups.items()],
        "groups_in_batch": len({rollout.session[0] for rollout in plan.rollouts if not rollout.padding}),
        "details": detailed,
        "teacher_prompts": texts,
    }


def _settings(srpo: SRPOConfig, step: int) -> dict[str, Any]:
    names = ("route", "providers", "policy_gradient", "weighting", "beta", "threshold", "divergence", "alpha", "topk")
    more = ("support", "add_tail", "denominator", "advantage_mix", "modulator", "turn_mean", "inspect_groups")
    return {name: getattr(srpo, name) for name in (*names, *more)} | {
        "logit_loss": srpo.logit_loss,
        "coefficient": srpo.coefficient(step),
    }


def _signals(view: StepView, looked: Looked, srpo: SRPOConfig, row: int, n: int | None) -> dict[str, list[Any]]:
    """By name, one number per token; None where the token is not the model's or the number is not finite."""
    found = {"advantage": view.signals.advantages[row]}
    found |= {name: values[row] for name, values in looked.signals.items() if row in values}
    if view.tokens is not None and n is not None:
        student, teacher = view.tokens.student_log_probs[n], view.tokens.teacher_log_probs[n]
        found |= {
            "teacher_entropy": view.tokens.teacher_entropy[n],
            "student_entropy": view.tokens.student_entropy[n],
            "teacher_log_prob": teacher,
            "student_log_prob": student,
            "trained_weight": view.signals.weights[row],
        }
        if looked.divergence is None:
            found["two_bucket_divergence"] = two_bucket_divergence(student, teacher, alpha=srpo.alpha)
        elif row in looked.divergence:
            found["divergence"] = looked.divergence[row]
        if view.tokens.importance is not None:
            found["importance"] = view.tokens.importance[n]
    mask = (view.masks[row] > 0).tolist()
    return {
        name: [_number(value) if own else None for value, own in zip(values.tolist(), mask, strict=True)]
        for name, values in found.items()
    }


def _number(value: Any) -> float | None:
    value = float(value)
    return float(f"{value:.6g}") if math.isfinite(value) else None
