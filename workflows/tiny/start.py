"""The start of a run: data and a model that half knows the task, in one folder.

    python -m workflows.tiny.start --out runs/tiny --seed 0

leaves `model/` (weights and tokenizer), a parquet file per split and `manifest.json`, in less than a minute on one CPU
core. Everything is a function of the settings. The manifest is written last: a folder whose manifest has the same
settings is complete and left as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pandas as pd
import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from srpo_verl.base.files import write_atomically
from workflows.tiny.model import CHAT_TEMPLATE, Size, build_model, build_tokenizer
from workflows.tiny.pupil import Beliefs, Pupil
from workflows.tiny.task import Question, Task, arithmetic, derivation
from workflows.tiny.texts import Example, TeacherForm, plain_example, teacher_example
from workflows.tiny.warmup import WarmUp, warm_up

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Start:
    """All that a start depends on; this one is `srpo demo`'s. Subclasses have other tasks and texts."""

    # Raise it when the same settings give another folder.
    FORMAT: ClassVar[int] = 4
    TEMPLATE: ClassVar[str] = CHAT_TEMPLATE

    seed: int = 0
    p: int = 5
    train: int = 1024
    validation: int = 0
    test: int = 128
    size: Size = field(default_factory=Size)
    beliefs: Beliefs = field(default_factory=Beliefs)
    teacher_form: TeacherForm = field(default_factory=TeacherForm)
    warm_up: WarmUp = field(default_factory=WarmUp)

    def record(self) -> dict:
        """What the manifest keeps of it, as JSON gives it back."""
        return json.loads(json.dumps({"format": self.FORMAT, **asdict(self)}))

    def task(self) -> Task:
        return arithmetic(self.p)

    def pupil(self) -> Pupil:
        return Pupil(self.beliefs, self.task(), random.Random(f"beginner {self.seed}"))

    def questions(self) -> dict[str, list[Question]]:
        """Distinct questions of each split; splits of size 0 are left out."""
        sizes = {"test": self.test, "validation": self.validation, "train": self.train}
        return self.task().split({name: size for name, size in sizes.items() if size}, self.seed)

    def stream(self, rng: random.Random) -> Iterator[Question]:
        """Questions to warm up on: any but the held-out ones."""
        held_out = {q for split, questions in self.questions().items() if split != "train" for q in questions}
        return self.task().stream(held_out, rng)

    def corpus(self) -> list[str]:
        """Text of both forms, for the tokenizer's merges."""
        task, rng = self.task(), random.Random("corpus")
        form = replace(self.teacher_form, corrupted=0.0, invented=0.0)
        examples = []
        for _ in range(200):
            q = task.sample(rng)
            examples.append(plain_example(task, q, task.solution(q, rng)))
            examples.append(teacher_example(task, q, task.knows, form, rng))
        return texts_of(examples)

    def batches(self) -> Iterator[list[list[Example]]]:
        """Per step the plain examples (the truth, then the pupil's answers) and those of the teacher's form."""
        task, pupil, rng = self.task(), self.pupil(), random.Random(f"warm-up {self.seed}")
        stream, warm = self.stream(rng), self.warm_up
        for step in range(warm.steps):
            plain = [next(stream) for _ in range(warm.batch - warm.teacher_batch)]
            shown = [next(stream) for _ in range(warm.teacher_batch)]
            if step < warm.clean_steps:
                answers = [task.solution(q, rng) for q in plain]
            else:
                answers = [task.response(derivation(q, lambda fact: pupil.state(fact, rng)), rng) for q in plain]
            yield [
                [plain_example(task, q, answer) for q, answer in zip(plain, answers, strict=True)],
                [teacher_example(task, q, task.knows, self.teacher_form, rng) for q in shown],
            ]

    def write_data(self, out: Path) -> None:
        """The questions of every split in verl's format."""
        task = self.task()
        for split, questions in self.questions().items():
            rows = [task.verl_row(q, i, split) for i, q in enumerate(questions)]
            pd.DataFrame(rows).to_parquet(out / f"{split}.parquet")


def texts_of(examples: list[Example]) -> list[str]:
    """Prompts and pieces in turn."""
    return [text for prompt, pieces in examples for text in (prompt, *(piece.text for piece in pieces))]


def is_complete(out: Path, start: Start) -> bool:
    """Whether the folder holds a finished build with exactly these settings."""
    manifest = out / MANIFEST
    return manifest.is_file() and json.loads(manifest.read_text())["settings"] == start.record()


def train_model(start: Start, *, progress: bool = True) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """The warmed-up model and its tokenizer. One thread, so that the weights do not depend on the machine's load."""
    torch.set_num_threads(1)
    tokenizer = build_tokenizer(start.corpus(), start.size, template=start.TEMPLATE)
    model = build_model(tokenizer, start.size, start.seed)
    warm_up(model, tokenizer, start.batches(), start.warm_up, progress=progress)
    return model, tokenizer


def weights_hash(model: torch.nn.Module) -> str:
    """A fingerprint of every parameter, names included."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def build(out: Path, start: Start, *, progress: bool = True) -> bool:
    """Build into `out`; False when a complete build with these settings was there already."""
    if is_complete(out, start):
        return False
    out.mkdir(parents=True, exist_ok=True)
    (out / MANIFEST).unlink(missing_ok=True)
    start.write_data(out)
    model, tokenizer = train_model(start, progress=progress)
    model.save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")
    manifest = {"settings": start.record(), "weights_sha256": weights_hash(model)}
    write_atomically(out / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    return True


def main(kind: type[Start] = Start, description: str | None = __doc__) -> None:
    """Build what the command line asks for."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to build")
    parser.add_argument("--seed", type=int, default=0, help="seed of faults, data and weights (default: 0)")
    parser.add_argument("--train", type=int, default=kind.train, help="training questions (default: %(default)s)")
    parser.add_argument("--test", type=int, default=kind.test, help="held-out questions (default: %(default)s)")
    args = parser.parse_args()
    started = time.monotonic()
    if build(args.out, kind(seed=args.seed, train=args.train, test=args.test)):
        print(f"{args.out}: built in {time.monotonic() - started:.0f} s")
    else:
        print(f"{args.out}: already built with these settings, nothing to do")


if __name__ == "__main__":
    main()
