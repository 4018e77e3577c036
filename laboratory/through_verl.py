"""Runs of the laboratory through verl itself, with Ray and vLLM; each leaves a record like those of the twin.

    python -m laboratory.through_verl lab --steps 60 --seeds 0
    python -m laboratory.through_verl smollm2 --steps 30 --seeds 0 1

`lab` is the tiny model and task of the laboratory, at the rates that the laboratory chose: the check that the twin's
curves are verl's. `smollm2` is SmolLM2-135M-Instruct on arithmetic, one learning rate for all, prepared as in
examples/smollm2/README.md. A run whose record exists is not repeated; one that was stopped goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laboratory.experiments import MAIN, PUBLISHED_RATES
from laboratory.methods import CONFIG, ROOT, method_overrides
from laboratory.run import write_text
from laboratory.start_policy import StartPolicy
from workflows.run_reader import read_run
from workflows.tiny.start import build
from workflows.verl_run import verl_command

# One rate for all methods, at which GRPO learns within ten steps on seed 100, which nothing else uses.
SMOLLM2_RATES = {"grpo": 3e-5, "sdpo": 3e-5, "srpo": 3e-5}
CONFIGS = {"lab": CONFIG, "smollm2": str(ROOT / "examples" / "smollm2" / "srpo_smollm2.yaml")}
SMOLLM2 = {
    "smollm2.folder": "runs/smollm2",
    "data.train_batch_size": 4,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
    "data.max_prompt_length": 80,
    "data.max_response_length": 16,
    "srpo.dump_dir": "null",
    "srpo.grad_norm_freq": 10,
    "actor_rollout_ref.rollout.val_kwargs.n": 8,
    "trainer.val_before_train": "true",
    "trainer.test_freq": 15,
    "trainer.save_freq": 10,
    "trainer.max_actor_ckpt_to_keep": 1,
    "trainer.resume_mode": "auto",
    # verl's own precision (weights and optimiser stay in float32): half the seconds where the CPU has AVX512_BF16.
    "actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype": "bf16",
    "actor_rollout_ref.rollout.dtype": "bfloat16",
}
KEPT = (
    "srpo/accuracy",
    "srpo/routed_share",
    "actor/entropy",
    "srpo/teacher_entropy",
    "srpo/sdpo_loss",
    "actor/pg_loss",
    "actor/grad_norm",
    "srpo/grad_norm/grpo",
    "srpo/grad_norm/sdpo",
    "response_length/mean",
    "timing_s/step",
)


@dataclass(frozen=True)
class VerlRun:
    """One run through verl."""

    kind: str
    method: str
    lr: float
    seed: int
    steps: int
    mode: str = "srpo"  # trainer.v1.trainer_mode

    @property
    def name(self) -> str:
        group = self.kind if self.mode == "srpo" else f"{self.kind}_{self.mode}"
        return f"{group}/{self.method}-lr{self.lr:g}-seed{self.seed}"

    def command(self, folder: Path) -> list[str]:
        """`python -m verl.trainer.main_ppo ...` with the run's folder below `folder`."""
        where = folder / "verl" / self.name
        settings: dict[str, object] = {
            "actor_rollout_ref.actor.optim.lr": self.lr,
            "trainer.total_training_steps": self.steps,
            "data.seed": self.seed,
            "actor_rollout_ref.rollout.seed": self.seed,
            "trainer.v1.trainer_mode": self.mode,
        }
        if self.kind == "lab":
            settings |= {"lab.start": folder / "start" / str(self.seed), "lab.run": where, "trainer.test_freq": 30}
        else:
            settings |= SMOLLM2 | {"trainer.default_local_dir": where}
        return verl_command(CONFIGS[self.kind], settings, ["trainer.logger=[file]", *method_overrides(self.method)])


def do(run: VerlRun, folder: Path) -> Path:
    """Run it if there is no record yet, and write the record."""
    path = folder / "records" / "through_verl" / f"{run.name}.jsonl"
    if path.exists():
        return path
    if run.kind == "lab":
        build(folder / "start" / str(run.seed), StartPolicy(run.seed), progress=False)
    where = folder / "verl" / run.name
    where.mkdir(parents=True, exist_ok=True)
    with open(where / "log.txt", "a") as log:
        print(f"{run.name}: output in {log.name}", flush=True)
        subprocess.run(run.command(folder), stdout=log, stderr=log, check=True)
    write_text(path, "".join(json.dumps(line) + "\n" for line in record_lines(run, where)))
    return path


def record_lines(run: VerlRun, where: Path) -> list[dict[str, Any]]:
    """The record of a finished run, from its metrics and rollouts."""
    lines: list[dict[str, Any]] = [{"kind": "run", **run.__dict__}]
    for record in read_run(where).records:
        found = {key: float(f"{record.data[key]:.5g}") for key in KEPT if key in record.data}
        if record.step > 0:
            lines.append({"kind": "train", "step": record.step, **found, **_leak(where / "rollouts", record.step)})
        if (accuracy := record.accuracy()) is not None:
            lines.append({"kind": "eval", "step": record.step, "accuracy": round(accuracy, 5)})
    return lines


def _leak(rollouts: Path, step: int) -> dict[str, float]:
    """Share of a step's rollouts that say "correct": a word of the teacher's prompt, which no question holds."""
    path = rollouts / f"{step}.jsonl"
    if not path.exists():
        return {}
    outputs = [json.loads(line)["output"].lower() for line in path.read_text().splitlines()]
    return {"says_correct": round(sum("correct" in output for output in outputs) / len(outputs), 5)}


def runs(kind: str, seeds: Sequence[int], steps: int) -> list[VerlRun]:
    """GRPO, SDPO and SRPO, seed by seed."""
    rates = json.loads(PUBLISHED_RATES.read_text()) if kind == "lab" else SMOLLM2_RATES
    return [VerlRun(kind, method, rates[method], seed, steps) for seed in seeds for method in MAIN]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("lab", "smollm2"))
    parser.add_argument("--steps", type=int, default=60, help="training steps of each run (default: 60)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="default: 0")
    parser.add_argument("--folder", type=Path, default=Path("runs/lab"), help="default: %(default)s")
    args = parser.parse_args()
    for run in runs(args.kind, args.seeds, args.steps):
        do(run, args.folder)


if __name__ == "__main__":
    main()
