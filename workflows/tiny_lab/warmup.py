"""Supervised warm-up: the model learns the task, then to answer like the beginner, and to make use of a demonstration.

Two forms of text, in every batch:

- the plain question. First the textbook: the true derivation; clean facts are learnt several times faster than noisy
  ones. Then the beginner: its faults are laid over what is known by now.
- the form of SRPO's self-teacher, the question with a demonstration, answered correctly. In some lines a fault is
  injected, without loss on it: the teacher re-scores failed responses, so it must know how to go on after a fault.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from workflows.tiny_lab.beginner import Beginner
from workflows.tiny_lab.model import END, chat_text
from workflows.tiny_lab.task import (
    OPERATORS,
    Question,
    answer_text,
    fact,
    line_text,
    question_text,
    sample_question,
    solution,
)

TEACHER_FORM = "{prompt}\nCorrect solution:\n\n{solution}\n\nCorrectly solve the original question."


@dataclass(frozen=True)
class WarmUp:
    """The warm-up's hyper-parameters; `teacher_batch` of the `batch` sequences have the teacher's form."""

    steps: int = 360
    textbook_steps: int = 220
    batch: int = 64
    teacher_batch: int = 16
    corrupted: float = 0.15
    invented: float = 0.5
    lr: float = 5e-3


@dataclass(frozen=True)
class Piece:
    """A stretch of a response, and whether the loss counts on it."""

    text: str
    trained: bool = True


Example = tuple[str, list[Piece]]
Operation = tuple[int, str, int]


def student_messages(q: Question) -> list[dict]:
    """The plain question."""
    return [{"role": "user", "content": question_text(q)}]


def teacher_messages(q: Question, solution: str) -> list[dict]:
    """The question with a demonstration, in the words of SRPO's self-teacher."""
    return [{"role": "user", "content": TEACHER_FORM.format(prompt=question_text(q), solution=solution)}]


def plain_example(q: Question, response: str) -> Example:
    """A question and its answer."""
    return chat_text(student_messages(q)), [Piece(response + END)]


def teacher_example(q: Question, beginner: Beginner, rng: random.Random, corrupted: float, invented: float) -> Example:
    """A question with a demonstration, answered as shown, with faults injected that carry no loss.

    Some demonstrations have invented results, so that they must be read: true ones could be ignored by a model that
    knows the facts. Behind a fault the working goes on from what stands there: the teacher corrects the first wrong
    token of a failed response and not all that follows from it. (Trained to return to the demonstration's numbers
    instead, it would teach the student to write an answer other than the result of its last line.)
    """
    p = beginner.p
    is_invented = rng.random() < invented
    shown: dict[Operation, int] = {}

    def show(a: int, op: str, b: int) -> int:
        return shown.setdefault((a, op, b), rng.randrange(p) if is_invented else fact(a, op, b, p))

    x, y = show(q.a, q.left, q.b), show(q.c, q.right, q.d)
    z = show(x, q.join, y)
    demonstration = [line_text(q.a, q.left, q.b, x), line_text(q.c, q.right, q.d, y), line_text(x, q.join, y, z)]
    prompt = chat_text(teacher_messages(q, "\n".join([*demonstration, answer_text(z)])))

    def work_out(a: int, op: str, b: int) -> tuple[list[Piece], int]:
        fault = rng.choice(("operator", "result")) if rng.random() < corrupted else None
        written = rng.choice([o for o in OPERATORS if o != op]) if fault == "operator" else op
        expected = shown.get((a, written, b), fact(a, written, b, p))
        result = rng.choice([r for r in range(p) if r != expected]) if fault == "result" else expected
        known = (a, written, b) in shown or not is_invented
        pieces = [
            Piece(f"{a}"),
            Piece(f" {written} ", trained=fault != "operator"),
            Piece(f"{b} = "),
            Piece(f"{result}", trained=known and fault != "result"),
        ]
        return pieces, result

    line_end = Piece("\n")
    left, x = work_out(q.a, q.left, q.b)
    right, y = work_out(q.c, q.right, q.d)
    join, z = work_out(x, q.join, y)
    return prompt, [*left, line_end, *right, line_end, *join, Piece("\n" + answer_text(z) + END)]


def encode(examples: list[Example], tokenizer: PreTrainedTokenizerFast) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded token ids and labels (-100 where there is no loss), both [examples, length].

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


def question_stream(excluded: set[Question], p: int, rng: random.Random) -> Iterator[Question]:
    """Random questions outside the excluded (held-out) set."""
    while True:
        q = sample_question(rng, p)
        if q not in excluded:
            yield q


def warm_up(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    beginner: Beginner,
    held_out: set[Question],
    settings: WarmUp,
    seed: int,
    on_step: Callable[[float], None] = lambda loss: None,
) -> None:
    """Train in place; `on_step(loss per token)` is called after every step."""
    rng = random.Random(f"warm-up {seed}")
    questions = question_stream(held_out, beginner.p, rng)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, settings.steps, pct_start=0.1)
    model.train()
    for step in range(settings.steps):
        plain = [next(questions) for _ in range(settings.batch - settings.teacher_batch)]
        teacher = [next(questions) for _ in range(settings.teacher_batch)]
        textbook = step < settings.textbook_steps
        batches = [
            encode([plain_example(q, solution(q) if textbook else beginner.answer(q, rng)) for q in plain], tokenizer),
            encode(
                [teacher_example(q, beginner, rng, settings.corrupted, settings.invented) for q in teacher], tokenizer
            ),
        ]
        n_tokens = sum(int((labels != -100).sum()) for _, labels in batches)
        losses = [token_loss_sum(model, ids, labels) / n_tokens for ids, labels in batches]
        optimizer.zero_grad(set_to_none=True)
        sum(losses).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        on_step(sum(losses).item())
    model.eval()
