"""What a start policy can do: accuracy, mixed groups, and how much a demonstration helps.

python -m laboratory.measure FOLDER      (one that `laboratory.start_policy` or `workflows.tiny.start` has built)
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from laboratory.sampler import sample
from laboratory.start_policy import StartPolicy
from laboratory.task import is_correct, keeps_form, wrong_lines
from srpo_verl.core import SECTIONS, PromptParts, teacher_prompt_ids
from workflows.tiny.start import MANIFEST, Start, is_complete
from workflows.tiny.task import Question, Task

MAX_NEW_TOKENS = 32


@dataclass(frozen=True)
class Answers:
    """`n` answers in a row for every question; the tensors are (questions, n)."""

    responses: list[torch.Tensor]
    texts: list[str]
    log_probs: list[torch.Tensor]
    correct: torch.Tensor
    form: torch.Tensor
    strict: torch.Tensor

    @property
    def mixed(self) -> float:
        """Share of the groups that hold both right and wrong answers."""
        return (self.correct.any(1) & ~self.correct.all(1)).float().mean().item()


def question_ids(tokenizer: PreTrainedTokenizerFast, question: str) -> list[int]:
    """The plain prompt, assistant header last."""
    messages = [{"role": "user", "content": question}]
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))


def shown_ids(tokenizer: PreTrainedTokenizerFast, question: str, demonstration: str) -> list[int]:
    """The teacher's prompt."""
    parts = PromptParts.of([{"role": "user", "content": question}], [(SECTIONS["sibling"], demonstration)])
    (prompt,) = teacher_prompt_ids(tokenizer, [parts], max_length=512)
    assert prompt is not None
    return prompt.input_ids


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    questions: Sequence[Question],
    prompts: Sequence[Sequence[int]],
    task: Task,
    *,
    n: int,
    temperature: float,
    generator: torch.Generator,
) -> Answers:
    """Sample and grade. `strict`: correct by a derivation of the question whose every line is true."""
    samples = sample(model, prompts, n=n, temperature=temperature, max_new_tokens=MAX_NEW_TOKENS, generator=generator)
    texts = tokenizer.batch_decode(samples.responses, skip_special_tokens=True)
    correct, form, true = (torch.zeros(len(questions), n, dtype=torch.bool) for _ in range(3))
    for i, text in enumerate(texts):
        place, q = divmod(i, n), questions[i // n]
        correct[place], form[place] = is_correct(text, task.value(q)), keeps_form(text, q, task)
        true[place] = wrong_lines(text, task) == 0
    return Answers(samples.responses, texts, samples.log_probs, correct, form, correct & form & true)


def answer_shown_truth(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    questions: Sequence[Question],
    task: Task,
    *,
    n: int,
    generator: torch.Generator,
) -> Answers:
    """Answers at T = 1 to the teacher's prompt with a true derivation in it: does it (still) use what it reads?"""
    rng = random.Random(0)
    prompts = [shown_ids(tokenizer, task.text(q), task.solution(q, rng)) for q in questions]
    return answer(model, tokenizer, questions, prompts, task, n=n, temperature=1.0, generator=generator)


@torch.no_grad()
def at_first_wrong_token(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    questions: Sequence[Question],
    answers: Answers,
    task: Task,
    most: int = 300,
) -> dict[str, float]:
    """At the first wrong result of failed responses with a correct sibling: P(right) without and with that sibling."""
    n = answers.correct.shape[1]
    plain: list[float] = []
    shown: list[float] = []
    for i, text in enumerate(answers.texts):
        q, place = divmod(i, n)
        siblings = answers.correct[q].nonzero().flatten().tolist()
        if answers.correct[q, place] or not siblings or len(plain) == most:
            continue
        found = first_wrong(text, task)
        if found is None:
            continue
        before, right = found
        written = tokenizer.encode(before, add_special_tokens=False)
        token = tokenizer.encode(right, add_special_tokens=False)[0]
        demonstration = answers.texts[q * n + siblings[0]]
        for prompt, into in (
            (question_ids(tokenizer, task.text(questions[q])), plain),
            (shown_ids(tokenizer, task.text(questions[q]), demonstration), shown),
        ):
            logits = model(input_ids=torch.tensor([prompt + written]), logits_to_keep=1).logits[0, -1]
            into.append(logits.softmax(-1)[token].item())
    if not plain:
        raise ValueError("no failed response has a correct sibling: nothing to measure; sample more questions.")
    return {"question": sum(plain) / len(plain), "sibling": sum(shown) / len(shown), "measured": len(plain)}


def first_wrong(text: str, task: Task) -> tuple[str, str] | None:
    """What stands before the first wrong result, and the right one; None if no line states one."""
    before = ""
    for line in text.split("\n"):
        stated = task.parse_line(line)
        if stated is None or stated[0] not in task.facts:
            return None
        fact, result = stated
        if task.facts[fact] != result:
            return before + line[:-1], str(task.facts[fact])
        before += line + "\n"
    return None


def report(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, start: Start) -> dict[str, float]:
    """All figures of a start policy, on its test questions."""
    task, questions = start.task(), start.questions()["test"]
    generator = torch.Generator().manual_seed(start.seed)
    prompts = [question_ids(tokenizer, task.text(q)) for q in questions]

    def run(prompts: list[list[int]], questions: Sequence[Question], n: int, temperature: float) -> Answers:
        return answer(model, tokenizer, questions, prompts, task, n=n, temperature=temperature, generator=generator)

    groups = run(prompts, questions, 8, 1.0)
    cool = run(prompts, questions, 16, 0.6)
    shown, with_sibling, of_failed = [], [], []
    for i, q in enumerate(questions):
        right = groups.correct[i].nonzero().flatten().tolist()
        if right:
            ids = shown_ids(tokenizer, task.text(q), groups.texts[8 * i + right[0]])
            shown.append(ids)
            with_sibling.append(q)
            of_failed.append(i)
    length = max(set(map(len, shown)), key=list(map(len, shown)).count)
    kept = [i for i, ids in enumerate(shown) if len(ids) == length]
    demonstrated = run([shown[i] for i in kept], [with_sibling[i] for i in kept], 8, 1.0)
    same = groups.correct[[of_failed[i] for i in kept]]
    wrong = at_first_wrong_token(model, tokenizer, questions, groups, task)
    return {
        "accuracy_t1": groups.correct.float().mean().item(),
        "accuracy_t06": cool.correct.float().mean().item(),
        "lucky_share": 1 - (groups.strict.sum() / groups.correct.sum()).item(),
        "mixed_groups": groups.mixed,
        "same_questions_without_sibling": same.float().mean().item(),
        "same_questions_with_sibling": demonstrated.correct.float().mean().item(),
        "p_right_at_first_wrong": wrong["question"],
        "p_right_at_first_wrong_with_sibling": wrong["sibling"],
    }


def start_of(folder: Path) -> Start:
    """What a folder was built from. Raises ValueError if that is no start that this code builds."""
    kept = json.loads((folder / MANIFEST).read_text())["settings"]
    for kind in (StartPolicy, Start):
        start = kind(kept["seed"], train=kept["train"], test=kept["test"])
        if is_complete(folder, start):
            return start
    raise ValueError(f"{folder} was built with other settings: build it again (laboratory.start_policy).")


def main(folder: Path) -> None:
    start = start_of(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    print(json.dumps(report(model, tokenizer, start), indent=2))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m laboratory.measure FOLDER")
    try:
        main(Path(sys.argv[1]))
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(str(error)) from error
