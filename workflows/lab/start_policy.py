"""The start of a run: tables, questions and a model warmed up on a pupil's answers, in one folder per seed.

    model/  train.parquet  validation.parquet  test.parquet  manifest.json

Everything is a function of the settings, on one thread. The folder is also what real verl trains on. The manifest is
written last: a folder whose manifest has the same settings is complete and left as it is.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from workflows.lab.pupil import Beliefs, Pupil, TeacherForm, plain_example, teacher_example
from workflows.lab.task import Question, Tables, question_stream, sample_question, split_questions, verl_row
from workflows.tiny_lab.model import Size, build_model, build_tokenizer
from workflows.tiny_lab.warmup import encode, token_loss_sum

MANIFEST = "manifest.json"
FORMAT = 3  # raise it when the same settings give another folder


@dataclass(frozen=True)
class WarmUp:
    """Supervised phase: first the pupil without its doubts (clean facts are learnt faster), then as it is."""

    steps: int = 460
    insisting_steps: int = 310
    batch: int = 80
    teacher_batch: int = 20
    lr: float = 5e-3


@dataclass(frozen=True)
class StartPolicy:
    """All that a start depends on."""

    seed: int
    p: int = 7
    train: int = 4096
    validation: int = 96
    test: int = 96
    size: Size = field(default_factory=lambda: Size(layers=2, mlp=256, kv_heads=2))
    beliefs: Beliefs = field(default_factory=Beliefs)
    teacher_form: TeacherForm = field(default_factory=TeacherForm)
    warm_up: WarmUp = field(default_factory=WarmUp)

    def record(self) -> dict:
        """What the manifest keeps of it, as JSON gives it back."""
        return json.loads(json.dumps({"format": FORMAT, **asdict(self)}))

    def tables(self) -> Tables:
        return Tables(self.p, self.seed)

    def questions(self) -> dict[str, list[Question]]:
        """Distinct questions of the three splits."""
        sizes = {"test": self.test, "validation": self.validation, "train": self.train}
        return split_questions(sizes, self.p, self.seed)


def train_model(
    start: StartPolicy, on_step: Callable[[int, float], None] = lambda step, loss: None
) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """The warmed-up model and its tokenizer; `on_step(step, loss per token)` is called after every step."""
    torch.set_num_threads(1)
    settings, tables = start.warm_up, start.tables()
    pupil = Pupil(start.beliefs, tables, start.seed)
    tokenizer = build_tokenizer(corpus(pupil, start.teacher_form), start.size)
    model = build_model(tokenizer, start.size, start.seed)
    questions = start.questions()
    rng = random.Random(f"warm-up {start.seed}")
    stream = question_stream({*questions["test"], *questions["validation"]}, start.p, rng)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, settings.steps, pct_start=0.1)
    model.train()
    for step in range(settings.steps):
        belief = pupil.insists if step < settings.insisting_steps else pupil.believes
        plain = [plain_example(next(stream), belief, rng) for _ in range(settings.batch - settings.teacher_batch)]
        shown = [
            teacher_example(next(stream), belief, start.p, start.teacher_form, rng)
            for _ in range(settings.teacher_batch)
        ]
        batches = [encode(plain, tokenizer), encode(shown, tokenizer)]
        tokens = sum(int((labels != -100).sum()) for _, labels in batches)
        loss = torch.stack([token_loss_sum(model, ids, labels) for ids, labels in batches]).sum() / tokens
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        on_step(step, float(loss.detach()))
    return model.eval(), tokenizer


def is_complete(folder: Path, start: StartPolicy) -> bool:
    """Whether the folder holds a finished build with exactly these settings."""
    manifest = folder / MANIFEST
    return manifest.is_file() and json.loads(manifest.read_text())["settings"] == start.record()


def build(folder: Path, start: StartPolicy, on_step: Callable[[int, float], None] = lambda step, loss: None) -> bool:
    """Build into `folder`; False when a complete build with these settings was there already."""
    if is_complete(folder, start):
        return False
    manifest = folder / MANIFEST
    folder.mkdir(parents=True, exist_ok=True)
    manifest.unlink(missing_ok=True)
    tables = start.tables()
    for split, questions in start.questions().items():
        rows = [verl_row(q, tables, i, split) for i, q in enumerate(questions)]
        pd.DataFrame(rows).to_parquet(folder / f"{split}.parquet")
    clock = time.process_time()
    model, tokenizer = train_model(start, on_step)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    record = {"settings": start.record(), "cpu_seconds": round(time.process_time() - clock, 1)}
    partial = folder / f"{MANIFEST}.part"
    partial.write_text(json.dumps(record, indent=2) + "\n")
    os.replace(partial, manifest)
    return True


def corpus(pupil: Pupil, form: TeacherForm) -> list[str]:
    """Text of both forms, for the tokenizer's merges."""
    rng = random.Random("corpus")
    texts = []
    for _ in range(200):
        q = sample_question(rng, pupil.p)
        for prompt, pieces in (
            plain_example(q, pupil.believes, rng),
            teacher_example(q, pupil.believes, pupil.p, form, rng),
        ):
            texts += [prompt, *(piece.text for piece in pieces)]
    return texts


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m workflows.lab.start_policy FOLDER SEED")
    start = StartPolicy(int(sys.argv[2]))
    with tqdm(total=start.warm_up.steps, desc="warm-up", unit="step") as bar:

        def on_step(step: int, loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()

        build(Path(sys.argv[1]), start, on_step)


if __name__ == "__main__":
    main()
