"""What the driver does for SRPO in a step, without the queue: routing, teacher prompts, advantages, token weights.

Groups of 8 rollouts of 512 to 8,192 tokens. Responses are stretches of this repository's own text in a byte-level
tokenizer trained on it, so that decoding and tokenising cost what they cost with text. The paper's step is 32 x 8
rollouts and takes 80 s; driver work shall stay below 1 % of that, and grow no faster than the number of rollouts.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from benchmarks.harness import Measure
from srpo_verl.config import SRPOConfig
from srpo_verl.training.step.routing_plan import Rollout, RoutingPlan, build_plan
from srpo_verl.training.step.step_signals import RoutedTokens, step_signals
from srpo_verl.training.step.teacher_prompts import TeacherPromptBuilder

STEP_SECONDS, SHARE, GROWTH = 80.0, 0.01, 1.5
GROUP, SHORTEST, LONGEST, QUESTION = 8, 512, 8192, 400
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def corpus() -> str:
    root = Path(__file__).parents[1]
    files = sorted([*root.glob("srpo_verl/**/*.py"), *root.glob("docs/*.md"), *root.glob("workflows/**/*.py")])
    return "\n".join(path.read_text() for path in files)


def text_tokenizer(text: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=8000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def step(
    rollouts: int, tokenizer: Any, ids: torch.Tensor, question: str
) -> tuple[dict[str, float], float, RoutingPlan, int]:
    """CPU seconds of each part for one batch; of the teacher prompts also those of the main thread alone, which more
    cores do not shorten; the plan, and its routed tokens."""
    rng = torch.Generator().manual_seed(rollouts)
    lengths = torch.randint(SHORTEST, LONGEST + 1, (rollouts,), generator=rng).tolist()
    scores = (torch.rand(rollouts, generator=rng) < 0.5).float()
    starts = torch.randint(0, max(len(ids) - LONGEST, 1), (rollouts,), generator=rng).tolist()
    responses = [ids[start : start + length] for start, length in zip(starts, lengths, strict=True)]
    srpo = SRPOConfig()
    seconds: dict[str, float] = {}

    started = time.process_time()
    plan = build_plan(
        [
            Rollout(key=f"{row // GROUP:08x}_{row % GROUP}_0", score=score, response_length=length)
            for row, (score, length) in enumerate(zip(scores.tolist(), lengths, strict=True))
        ],
        srpo,
    )
    seconds["routing"] = time.process_time() - started

    started, serial = time.process_time(), time.thread_time()
    builder = TeacherPromptBuilder(tokenizer, srpo, 2048 + LONGEST + 512, {})
    rows = plan.routed_rows()
    messages = {row: [{"role": "user", "content": f"{row // GROUP}. {question}"}] for row in rows}
    siblings = {int(plan.routing.demonstration[row]) for row in rows}
    plan, prompts, _ = builder.build(plan, messages, {row: responses[row] for row in siblings})
    seconds["teacher prompts"] = time.process_time() - started
    in_one_thread = time.thread_time() - serial
    assert len(prompts) == len(rows)
    assert min(len(prompt.input_ids) for prompt in prompts.values()) > SHORTEST

    masks = [torch.ones(length) for length in lengths]
    entropy = [torch.rand(lengths[row], generator=rng) for row in rows]
    started = time.process_time()
    known = RoutedTokens(rows, entropy, entropy, entropy, entropy, importance=[masks[row] for row in rows])
    signals = step_signals(plan, srpo, rewards=scores, masks=masks, normalize_by_std=False, tokens=known)
    seconds["advantages and weights"] = time.process_time() - started
    assert len(signals.advantages) == rollouts
    return seconds, in_one_thread, plan, sum(lengths[row] for row in rows)


def run(rollouts: tuple[int, ...] = (256, 1024, 4096)) -> list[Measure]:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # as verl sets it
    text = corpus()
    tokenizer = text_tokenizer(text)
    ids = torch.tensor(tokenizer(text)["input_ids"])
    question = text[:QUESTION]
    step(64, tokenizer, ids, question)
    results, totals = [], {}
    for count in rollouts:
        seconds, serial, plan, routed_tokens = step(count, tokenizer, ids, question)
        totals[count] = sum(seconds.values())
        results.append(Measure(f"{count} rollouts: routed", float(plan.routed.sum()), "rollouts"))
        results.append(Measure(f"{count} rollouts: routed tokens", float(routed_tokens), "tokens"))
        results += [Measure(f"{count} rollouts: {part}", value, "s") for part, value in seconds.items()]
        results.append(Measure(f"{count} rollouts: teacher prompts, in one thread", serial, "s"))
    smallest, largest = min(rollouts), max(rollouts)
    share = totals[smallest] * 256 / smallest / STEP_SECONDS
    growth = totals[largest] / totals[smallest] / (largest / smallest)
    results.append(Measure(f"256 rollouts: share of a step of {STEP_SECONDS:g} s", share, "x", SHARE))
    results.append(Measure(f"{smallest} -> {largest} rollouts: time per rollout", growth, "x", GROWTH))
    return results
