"""A tiny model that guesses letters, for walking through every command in minutes, and questions for it to guess at.

    python examples/walk/build.py model --out runs/walk/model
    python examples/walk/build.py questions --out runs/walk/questions

The model knows the form that SciKnowEval asks for, `<answer>` and a letter, and nothing else: on four options a quarter
of its answers is right, so that groups are mixed and rollouts are routed. The questions have the layout of SDPO's
repository and name their right option, for where no benchmark files are at hand.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
from tqdm import tqdm

from workflows.prepare.adapters.sciknoweval import SYSTEM
from workflows.tiny.model import END, Size, build_model, build_tokenizer, chat_text
from workflows.tiny.texts import Piece
from workflows.tiny.warmup import encode, token_loss_sum

SIZE = Size(max_length=2048)
STEPS, BATCH = 80, 16
REASONING = "\nPlease reason step by step."


def answer(letter: str) -> str:
    return f"<answer>\n{letter}\n</answer>{END}"


def question(rng: random.Random, letters: str) -> tuple[str, str]:
    """A prompt in SciKnowEval's form, and the letter of the option that it names."""
    texts = rng.sample(range(10, 100), len(letters))
    key = rng.choice(letters)
    options = "\n".join(f"{letter}: {text}" for letter, text in zip(letters, texts, strict=True))
    return f"Which option is {texts[letters.index(key)]}?\n\n{options}{REASONING}", key


def example(rng: random.Random, letters: str) -> tuple[str, list[Piece]]:
    """Text of any length, and a letter that has nothing to do with it."""
    noise = "".join(rng.choices("abcdefgh CNO()=123", k=rng.choice([0, 50, 200, 600])))
    prompt, _ = question(rng, letters)
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": noise + prompt}]
    return chat_text(messages), [Piece(answer(rng.choice(letters)))]


def make_model(out: Path, seed: int) -> None:
    """About 20 seconds on one core. The config file is written last."""
    torch.set_num_threads(1)
    rng = random.Random(seed)
    tokenizer = build_tokenizer([SYSTEM, REASONING, *(answer(letter) for letter in "ABCD")] * 2, SIZE)
    model = build_model(tokenizer, SIZE, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in tqdm(range(STEPS), desc="warm-up", unit="step", disable=None):
        ids, labels = encode([example(rng, "ABCD") for _ in range(BATCH)], tokenizer)
        loss = token_loss_sum(model, ids, labels) / int((labels != -100).sum())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokenizer.save_pretrained(out)
    model.eval().save_pretrained(out)
    print(f"{out}: loss {loss.item():.2f} nats per token")


def make_questions(out: Path, seed: int) -> None:
    """128 questions to train on and 64 to test on."""
    rng = random.Random(seed)
    out.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 128), ("test", 64)):
        rows = []
        for index in range(count):
            prompt, key = question(rng, "ABCD")
            row = {"idx": index, "kind": "mcq", "dataset": "sciknoweval", "system": SYSTEM}
            rows.append(json.dumps({**row, "prompt": prompt, "answer": key}))
        (out / f"{split}.json").write_text("\n".join(rows) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["model", "questions"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    (make_model if options.what == "model" else make_questions)(options.out, options.seed)


if __name__ == "__main__":
    main()
