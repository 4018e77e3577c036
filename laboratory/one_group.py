"""One group of rollouts, from the prompt to the loss, by the functions that a run calls.

The model is `srpo demo`'s after a shorter warm-up, in float64, so that the digits shown do not depend on the processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from laboratory.measure import question_ids
from laboratory.sampler import sample
from laboratory.task import is_correct
from laboratory.twin import Batch, Twin, packed_logits
from srpo_verl.core import entropy_weights
from srpo_verl.training.fields import TEACHER_LOG_PROBS, TOKEN_WEIGHTS, TOPK_IDS
from srpo_verl.training.step.routing_plan import Rollout, RoutingPlan, build_plan
from srpo_verl.training.step.teacher_prompts import TeacherPromptBuilder, max_teacher_prompt_length
from srpo_verl.training.worker.objective import DIVERGENCE
from workflows.compose_config import compose_config
from workflows.tiny.model import build_model, build_tokenizer
from workflows.tiny.start import Start
from workflows.tiny.warmup import WarmUp, warm_up

GROUP, QUESTION = 4, 7
START = Start(0, warm_up=WarmUp(steps=120, clean_steps=80, batch=32, teacher_batch=12))


@dataclass(frozen=True)
class RoutedRow:
    """A distilled answer, token by token; (j,) each unless said otherwise.

    Attributes:
        student: (j, K) probabilities of the student's top K; `teacher`: the teacher's at the same ids.
        ids: (j, K), the top K.
        entropy: of the teacher, over the full vocabulary, in nats.
        weight: by entropy; their mean over all routed tokens is 1.
        importance: trainer over sampler, truncated.
        divergence: in nats.
    """

    row: int
    ids: torch.Tensor
    student: torch.Tensor
    teacher: torch.Tensor
    entropy: torch.Tensor
    weight: torch.Tensor
    importance: torch.Tensor
    divergence: torch.Tensor


@dataclass(frozen=True)
class OneStep:
    """What happened to one group."""

    question: str
    plan: RoutingPlan
    tokenizer: PreTrainedTokenizerBase
    responses: list[torch.Tensor]
    advantages: list[float]
    teacher_prompts: dict[int, str]
    routed: list[RoutedRow]
    loss: float

    def text(self, row: int) -> str:
        return self.tokenizer.decode(self.responses[row], skip_special_tokens=True)

    def pieces(self, ids: torch.Tensor) -> list[str]:
        """The text of each token, with a visible line break."""
        return [self.tokenizer.decode(token).replace("\n", "\\n") for token in ids.tolist()]

    def policy_gradient(self, row: int) -> float:
        """Sum over the row's tokens of -advantage: the ratio of the first update is 1, and so is the weight here."""
        return -self.advantages[row] * len(self.responses[row])


def one_step() -> OneStep:
    """Build the model, sample the group, route it, ask the teacher, compute the loss. Deterministic."""
    torch.set_num_threads(1)
    tokenizer = build_tokenizer(START.corpus(), START.size, template=START.TEMPLATE)
    model = build_model(tokenizer, START.size, START.seed).double()
    warm_up(model, tokenizer, START.batches(), START.warm_up, progress=False)
    model.float()
    config = compose_config("srpo_tiny", ["srpo.topk=5"])
    twin = Twin(model, config)

    task, question = START.task(), START.questions()["test"][QUESTION]
    text = task.text(question)
    prompt = question_ids(tokenizer, text)
    generator = torch.Generator().manual_seed(START.seed)
    samples = sample(model.eval(), [prompt], n=GROUP, temperature=1.0, max_new_tokens=32, generator=generator)
    answers = tokenizer.batch_decode(samples.responses, skip_special_tokens=True)
    scores = [float(is_correct(answer, task.value(question))) for answer in answers]
    rollouts = [
        Rollout(key=f"q_{i}_0", score=score, response_length=len(samples.responses[i]))
        for i, score in enumerate(scores)
    ]
    plan = build_plan(rollouts, twin.srpo, group_size=GROUP)
    builder = TeacherPromptBuilder(
        tokenizer=tokenizer,
        srpo=twin.srpo,
        max_length=max_teacher_prompt_length(config, twin.srpo),
        chat_template_kwargs={},
    )
    messages = {row: [{"role": "user", "content": text}] for row in plan.asked_rows()}
    shown = {row: ids.tolist() for row, ids in enumerate(samples.responses)}
    plan, prompts, _ = builder.build(plan, messages, shown)
    rewards = torch.tensor(scores, dtype=torch.float64)
    batch = Batch(
        plan=plan,
        prompts=[torch.tensor(prompt)] * GROUP,
        responses=samples.responses,
        masks=[torch.ones_like(response) for response in samples.responses],
        rewards=rewards,
        teacher_prompts={row: torch.tensor(made.input_ids) for row, made in prompts.items()},
        rollout_log_probs=samples.log_probs,
    )
    return OneStep(
        question=text,
        plan=plan,
        tokenizer=tokenizer,
        responses=samples.responses,
        advantages=plan.advantages(rewards, twin.srpo, normalize_by_std=False).tolist(),
        teacher_prompts={row: tokenizer.decode(made.input_ids) for row, made in prompts.items()},
        **_told_apart(twin, batch),
    )


def _told_apart(twin: Twin, batch: Batch) -> dict:
    """The loss of the batch, and what it is made of on the routed rows."""
    loss, _, data, outputs = twin.loss(batch)
    rows = batch.plan.routed_rows()
    lengths = [len(batch.responses[row]) for row in rows]
    with torch.no_grad():
        students = [torch.cat([batch.prompts[row], batch.responses[row]]) for row in rows]
        teachers = [torch.cat([batch.teacher_prompts[row], batch.responses[row]]) for row in rows]
        own = _at_responses(packed_logits(twin.model, students), students, lengths)
        theirs = _at_responses(packed_logits(twin.teacher, teachers), teachers, lengths)
    entropies = [torch.special.entr(logits.softmax(-1)).sum(-1) for logits in theirs]
    flat = torch.cat(entropies)
    weights = entropy_weights(flat, torch.ones_like(flat), beta=twin.srpo.beta).split(lengths)
    found = []
    for i, row in enumerate(rows):
        ids = data[TOPK_IDS].unbind()[row]
        prompt = len(batch.prompts[row])
        found.append(
            RoutedRow(
                row=row,
                ids=ids,
                student=own[i].softmax(-1).gather(-1, ids),
                teacher=data[TEACHER_LOG_PROBS].unbind()[row].exp(),
                entropy=entropies[i],
                weight=weights[i],
                importance=data["rollout_is_weights"].unbind()[row],
                divergence=outputs[DIVERGENCE].unbind()[row].detach()[prompt - 1 : prompt - 1 + lengths[i]],
            )
        )
        # The parts that are shown are the parts that were trained on.
        torch.testing.assert_close(
            data[TOKEN_WEIGHTS].unbind()[row].double(), (found[-1].weight * found[-1].importance).double()
        )
    return {"routed": found, "loss": float(loss.detach())}


def _at_responses(logits: torch.Tensor, sequences: Sequence[torch.Tensor], lengths: Sequence[int]) -> list:
    """Of packed logits, those that predict the responses' tokens: (j, V) per row."""
    rows = logits.split([len(sequence) for sequence in sequences])
    return [row[-length - 1 : -1] for row, length in zip(rows, lengths, strict=True)]
