"""What a policy of the tiny task can do: accuracy, mixed groups, and how much a demonstration helps.

python -m workflows.tiny_lab.measure runs/tiny
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen3ForCausalLM

from workflows.tiny_lab.model import END, chat_text
from workflows.tiny_lab.task import Question, parse_question, read_answer, solution, value
from workflows.tiny_lab.warmup import student_messages, teacher_messages

MAX_NEW_TOKENS = 32


@dataclass(frozen=True)
class Rollouts:
    """Sampled responses, `n` in a row for every question."""

    questions: list[Question]
    n: int
    response_ids: list[list[int]]
    texts: list[str]
    correct_Q_n: torch.Tensor

    @property
    def accuracy(self) -> float:
        return self.correct_Q_n.float().mean().item()

    @property
    def mixed(self) -> float:
        """Share of the groups that hold both right and wrong answers."""
        return (self.correct_Q_n.any(1) & ~self.correct_Q_n.all(1)).float().mean().item()


def encode_chat(messages: list[dict], tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The prompt's token ids, the assistant header last."""
    return tokenizer.encode(chat_text(messages), add_special_tokens=False)


@torch.no_grad()
def sample(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    questions: list[Question],
    n: int = 1,
    temperature: float = 1.0,
    solutions: list[str] | None = None,
) -> Rollouts:
    """Answer every question `n` times; temperature 0 is greedy. With `solutions`, in the teacher's form."""
    if solutions is None:
        chats = [student_messages(q) for q in questions]
    else:
        chats = [teacher_messages(q, s) for q, s in zip(questions, solutions, strict=True)]
    prompts = [ids for ids in (encode_chat(chat, tokenizer) for chat in chats) for _ in range(n)]
    length, pad = max(map(len, prompts)), tokenizer.pad_token_id
    out = model.generate(
        input_ids=torch.tensor([[pad] * (length - len(p)) + p for p in prompts]),
        attention_mask=torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts]),
        max_new_tokens=MAX_NEW_TOKENS,
        do_sample=temperature > 0,
        temperature=temperature or None,
        top_k=0 if temperature else None,
    )
    responses = []
    for row in out[:, length:].tolist():
        end = row.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in row else len(row)
        responses.append(row[:end])
    texts = tokenizer.batch_decode(responses, skip_special_tokens=True)
    truth = [str(value(q)) for q in questions for _ in range(n)]
    correct = torch.tensor([read_answer(t) == v for t, v in zip(texts, truth, strict=True)])
    return Rollouts(questions, n, responses, texts, correct.view(-1, n))


@torch.no_grad()
def next_token_probability(model: Qwen3ForCausalLM, context: list[int], token: int) -> float:
    """P(token | context)."""
    return model(input_ids=torch.tensor([context])).logits[0, -1].softmax(-1)[token].item()


def at_first_wrong_token(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, rollouts: Rollouts, most: int = 200
) -> tuple[float, float]:
    """Mean P(right token) at the first wrong token of failed responses: (question only, question + correct sibling)."""
    plain: list[float] = []
    shown: list[float] = []
    for k, response in enumerate(rollouts.response_ids):
        i, j = divmod(k, rollouts.n)
        siblings = rollouts.correct_Q_n[i].nonzero().flatten().tolist()
        if rollouts.correct_Q_n[i, j] or not siblings or len(plain) == most:
            continue
        q = rollouts.questions[i]
        truth = tokenizer.encode(solution(q) + END, add_special_tokens=False)
        t = next((t for t, (a, b) in enumerate(zip(response, truth, strict=False)) if a != b), None)
        if t is None:
            continue
        sibling = rollouts.texts[i * rollouts.n + siblings[0]]
        for messages, into in ((student_messages(q), plain), (teacher_messages(q, sibling), shown)):
            into.append(next_token_probability(model, encode_chat(messages, tokenizer) + truth[:t], truth[t]))
    if not plain:
        raise ValueError("no failed response has a correct sibling: nothing to measure; sample more questions")
    return sum(plain) / len(plain), sum(shown) / len(shown)


def report(folder: Path, seed: int = 0) -> dict[str, float]:
    """All figures of the start policy in a built folder, on its held-out questions."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    prompts = pd.read_parquet(folder / "test.parquet")["prompt"]
    questions = [parse_question(messages[-1]["content"]) for messages in prompts]
    torch.manual_seed(seed)
    groups = sample(model, tokenizer, questions, n=8)
    plain, shown = at_first_wrong_token(model, tokenizer, groups)
    solutions = [solution(q) for q in questions]
    return {
        "accuracy, temperature 1.0": groups.accuracy,
        "accuracy, temperature 0.6": sample(model, tokenizer, questions, n=8, temperature=0.6).accuracy,
        "accuracy, greedy": sample(model, tokenizer, questions, temperature=0.0).accuracy,
        "accuracy with a demonstration, temperature 1.0": sample(
            model, tokenizer, questions, n=4, solutions=solutions
        ).accuracy,
        "mixed groups of 8": groups.mixed,
        "P(right) at the first wrong token": plain,
        "P(right) there, given a correct sibling": shown,
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(
            "usage: python -m workflows.tiny_lab.measure FOLDER (one that examples/tiny/build.py has built)"
        )
    print(json.dumps(report(Path(sys.argv[1])), indent=2))
