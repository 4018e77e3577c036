"""How far the EMA of an adapter's factors is from the EMA of the weights that they make.

    python -m laboratory.lora_teachers --out runs/lora_teachers --seeds 0 1 2

One run trains an adapter with SRPO on the laboratory's task and is taught by the exact EMA; the other form, what
`srpo.teacher.lora_ema: adapter` keeps, follows the same student beside it. Printed per seed and step, of all weights:
|| adapter - exact || / || exact - student ||, and of the teacher's next-token distributions on the routed rollouts
(nats per token): KL(exact, adapter) beside KL(exact, student).
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from omegaconf import DictConfig
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from laboratory.methods import compose
from laboratory.run import RunSpec, Trainer
from laboratory.start_policy import StartPolicy
from laboratory.twin import Batch, Twin, packed_logits
from srpo_verl.training.worker.lora_teacher import AdapterWeights
from srpo_verl.training.worker.lora_weights import merged_state
from workflows.tiny.start import build

STEPS = (10, 20, 50, 100)


class BothForms(Twin):
    """Taught by all weights (`teacher`); the adapter beside them is `other`."""

    def __init__(self, model: nn.Module, plain: nn.Module, config: DictConfig):
        super().__init__(model, config)
        self.teacher = plain.requires_grad_(False)
        self.other = AdapterWeights(model, copied=True)

    def step(self, batch: Batch, *, measure_branches: bool = False) -> dict[str, float]:
        metrics = super().step(batch, measure_branches=measure_branches)
        variant = self.srpo.variant("teacher")
        self.other.follow(self.model, lambda own, actor: variant(own, actor, self.steps, self.srpo))
        self.batch = batch
        return metrics

    @torch.no_grad()
    def compared(self) -> tuple[float, float, float]:
        """The figures of the module's docstring, after the last step."""
        student, adapter = copy.deepcopy(self.teacher), copy.deepcopy(self.teacher)
        student.load_state_dict(dict(merged_state(self.model)))
        with self.other.teacher_in_place():
            adapter.load_state_dict(dict(merged_state(self.model)))
        batch = self.batch
        rows = [(prompt, batch.responses[row]) for row, prompt in batch.teacher_prompts.items()]
        sequences = [torch.cat(pair) for pair in rows]
        ends = torch.tensor([len(sequence) for sequence in sequences]).cumsum(0).tolist()
        kept = [torch.arange(end - len(row[1]) - 1, end - 1) for end, row in zip(ends, rows, strict=True)]
        exact, other, pupil = (
            packed_logits(model, sequences)[torch.cat(kept)].double().log_softmax(-1)
            for model in (self.teacher, adapter, student)
        )
        apart = [float((exact.exp() * (exact - log_probs)).sum(-1).mean()) for log_probs in (other, pupil)]
        return _norm(adapter, self.teacher) / _norm(self.teacher, student), apart[0], apart[1]


def measure(folder: Path, seed: int, lr: float, rank: int) -> None:
    start = StartPolicy(seed)
    build(folder / str(seed), start, progress=False)
    path = folder / str(seed) / "model"
    torch.manual_seed(seed)
    plain = AutoModelForCausalLM.from_pretrained(path, attn_implementation="sdpa")
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    spec = RunSpec("lora", "srpo", lr, seed)
    config = compose(spec.config_overrides())
    adapted = get_peft_model(copy.deepcopy(plain), lora).base_model.model
    twin = BothForms(adapted, plain, config)
    trainer = Trainer(spec, config, twin, AutoTokenizer.from_pretrained(path), start.task(), start.questions())
    for step in range(1, STEPS[-1] + 1):
        trainer.step(measure_branches=False, measure_gain=False)
        if step in STEPS:
            weights, adapter, student = twin.compared()
            print(f"seed {seed}, step {step}: {weights:.3f}, {adapter:.2e}, {student:.2e}", flush=True)


def _norm(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return sum(float((a.double() - b.double()).square().sum()) for a, b in pairs) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/lora_teachers"), help="where the start policies go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--lr", type=float, default=2e-3, help="ten times the laboratory's (2e-3)")
    parser.add_argument("--rank", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("|| adapter - exact || / || exact - student ||, KL(exact, adapter), KL(exact, student)")
    for seed in options.seeds:
        measure(options.out, seed, options.lr, options.rank)


if __name__ == "__main__":
    main()
