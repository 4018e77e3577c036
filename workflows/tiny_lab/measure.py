"""What a policy of the tiny task can do: accuracy, mixed groups, and how much a demonstration helps."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from workflows.tiny_lab.model import chat_text
from workflows.tiny_lab.task import Question, read_answer, value
from workflows.tiny_lab.warmup import student_messages, teacher_messages

MAX_NEW_TOKENS = 32


@dataclass(frozen=True)
class Rollouts:
    """Sampled responses: `n` in a row for every question."""

    questions: list[Question]
    n: int
    response_ids: list[list[int]]
    texts: list[str]
    correct: torch.Tensor  # bool, [questions, n]


def left_pad(ids_B: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, padded on the left."""
    length = max(map(len, ids_B))
    ids = torch.tensor([[pad] * (length - len(i)) + i for i in ids_B])
    mask = torch.tensor([[0] * (length - len(i)) + [1] * len(i) for i in ids_B])
    return ids, mask


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
    prompts = [p for p in (encode_chat(c, tokenizer) for c in chats) for _ in range(n)]
    ids, mask = left_pad(prompts, tokenizer.pad_token_id)
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    out = model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=MAX_NEW_TOKENS, **(sampling or {"do_sample": False})
    )
    responses = []
    for row in out[:, ids.shape[1] :].tolist():
        end = row.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in row else len(row)
        responses.append(row[:end])
    texts = tokenizer.batch_decode(responses, skip_special_tokens=True)
    truth = [str(value(q)) for q in questions for _ in range(n)]
    correct = torch.tensor([read_answer(t) == v for t, v in zip(texts, truth, strict=True)]).view(-1, n)
    return Rollouts(questions, n, responses, texts, correct)
