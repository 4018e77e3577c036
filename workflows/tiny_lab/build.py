"""Build the laboratory in one folder: `model/` (weights and tokenizer), the two parquet files and `manifest.json`.

The manifest is written last. A folder whose manifest has the same settings is complete and is left as it is.
"""

import hashlib
import json
import random
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from workflows.tiny_lab.beginner import Beginner, Faults
from workflows.tiny_lab.model import Size, build_model, build_tokenizer
from workflows.tiny_lab.task import Question, sample_question, solution, split_questions, verl_row
from workflows.tiny_lab.warmup import WarmUp, plain_example, teacher_example, warm_up

MANIFEST = "manifest.json"
FORMAT = 4  # raise it when the same settings give another build


@dataclass(frozen=True)
class Settings:
    """All that a build depends on."""

    seed: int = 0
    p: int = 5
    n_train: int = 1024
    n_test: int = 128
    size: Size = field(default_factory=Size)
    faults: Faults = field(default_factory=Faults)
    warm_up: WarmUp = field(default_factory=WarmUp)

    def record(self) -> dict:
        """What the manifest keeps of it."""
        return {"format": FORMAT, **asdict(self)}

    def questions(self) -> tuple[list[Question], list[Question]]:
        """Training and held-out questions."""
        return split_questions(self.n_train, self.n_test, self.p, self.seed)


def is_complete(out: Path, settings: Settings) -> bool:
    """Whether the folder holds a finished build with exactly these settings."""
    manifest = out / MANIFEST
    return manifest.is_file() and json.loads(manifest.read_text())["settings"] == settings.record()


def corpus(beginner: Beginner, n: int = 200) -> list[str]:
    """Text of both forms, for the tokenizer's merges."""
    rng = random.Random("corpus")
    texts = []
    for _ in range(n):
        q = sample_question(rng, beginner.p)
        for prompt, pieces in (
            plain_example(q, solution(q)),
            teacher_example(q, beginner, rng, corrupted=0.0, invented=0.0),
        ):
            texts += [prompt, *(piece.text for piece in pieces)]
    return texts


def train_model(settings: Settings, *, progress: bool = True) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """The warmed-up model and its tokenizer. One thread, so that the weights do not depend on the machine's load."""
    torch.set_num_threads(1)
    beginner = Beginner(settings.faults, settings.p, settings.seed)
    tokenizer = build_tokenizer(corpus(beginner), settings.size)
    model = build_model(tokenizer, settings.size, settings.seed)
    _, held_out = settings.questions()
    with tqdm(total=settings.warm_up.steps, desc="warm-up", unit="step", disable=not progress) as bar:

        def on_step(loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()

        warm_up(model, tokenizer, beginner, set(held_out), settings.warm_up, settings.seed, on_step)
    return model, tokenizer


def weights_hash(model: torch.nn.Module) -> str:
    """A fingerprint of every parameter, names included."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_parquet(settings: Settings, out: Path) -> None:
    """Training and test questions in verl's format."""
    for split, questions in zip(("train", "test"), settings.questions(), strict=True):
        rows = [verl_row(q, i, split) for i, q in enumerate(questions)]
        pd.DataFrame(rows).to_parquet(out / f"{split}.parquet")


def build(out: Path, settings: Settings, *, progress: bool = True) -> bool:
    """Build into `out`; False when a complete build with these settings was there already."""
    if is_complete(out, settings):
        return False
    out.mkdir(parents=True, exist_ok=True)
    (out / MANIFEST).unlink(missing_ok=True)
    write_parquet(settings, out)
    model, tokenizer = train_model(settings, progress=progress)
    model.save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")
    manifest = {"settings": settings.record(), "weights_sha256": weights_hash(model)}
    (out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return True
