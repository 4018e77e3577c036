"""One run: a start policy, a method, a learning rate; training by the twin, validation as it goes, one compact file.

A record file has one JSON line of kind `run` (what it was), one `eval` line per validation and one `train` line per
window of steps (means over the window). It appears under its name only when the run is complete.
"""

from __future__ import annotations

import fcntl
import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from laboratory.answer_measures import answer_measures
from laboratory.measure import answer, answer_shown_truth, question_ids, report
from laboratory.methods import compose, method_overrides
from laboratory.start_policy import StartPolicy
from laboratory.twin import Batch, Twin
from srpo_verl.base.files import write_atomically
from srpo_verl.training.durable.run_states import next_states
from srpo_verl.training.step.routing_plan import Rollout, build_plan
from srpo_verl.training.step.step_metrics import routing_metrics
from srpo_verl.training.step.teacher_prompts import TeacherPromptBuilder, max_teacher_prompt_length
from workflows.tiny.start import build
from workflows.tiny.task import Question, Task

PROMPTS, ROLLOUTS, VALIDATION_SAMPLES, SHOWN_SAMPLES = 8, 8, 16, 4
# Steps between two measurements of the gradient of each branch, and of the teacher's gain.
BRANCHES_EVERY, GAIN_EVERY = 30, 10


@dataclass(frozen=True)
class RunSpec:
    """What a run depends on. `seed` fixes tables, pupil, weights, questions and sampling."""

    experiment: str
    method: str
    lr: float
    seed: int
    split: str = "test"
    steps: int = 480
    eval_every: int = 30
    # Further overrides of the config `srpo_lab`.
    overrides: tuple[str, ...] = ()
    # The verdict also wants a derivation whose every line is true, so that no correct sibling was lucky.
    strict: bool = False
    # The name in tables, if it is not the method's.
    label: str = ""

    @property
    def name(self) -> str:
        return f"{self.experiment}/{self.label or self.method}-lr{self.lr:g}-seed{self.seed}"

    def config_overrides(self) -> list[str]:
        return [*method_overrides(self.method), f"actor_rollout_ref.actor.optim.lr={self.lr}", *self.overrides]


def record_path(folder: Path, spec: RunSpec) -> Path:
    """Where the record of a finished run stands."""
    return folder / "records" / f"{spec.name}.jsonl"


def run(spec: RunSpec, folder: Path, start: StartPolicy | None = None) -> Path:
    """Build the start if needed (the seed's, if none is given), train, and write the record.

    A finished run is not repeated.
    """
    path = record_path(folder, spec)
    if path.exists():
        return path
    torch.set_num_threads(1)
    start = start or StartPolicy(spec.seed)
    start_folder = folder / "start" / str(spec.seed)
    start_folder.mkdir(parents=True, exist_ok=True)
    with open(start_folder / ".lock", "w") as lock:
        # Another process may be building the same start.
        fcntl.flock(lock, fcntl.LOCK_EX)
        build(start_folder, start, progress=False)
    measured = folder / "records" / "start" / f"{spec.seed}.json"
    tokenizer = AutoTokenizer.from_pretrained(start_folder / "model")
    model = AutoModelForCausalLM.from_pretrained(start_folder / "model", attn_implementation="sdpa")
    if start == StartPolicy(spec.seed) and not measured.exists():
        write_text(measured, json.dumps(report(model.eval(), tokenizer, start)) + "\n")
    config = compose(spec.config_overrides())
    trainer = Trainer(spec, config, Twin(model, config), tokenizer, start.task(), start.questions())

    lines: list[dict[str, Any]] = [{"kind": "run", **asdict(spec)}, trainer.evaluate(0)]
    window: list[dict[str, float]] = []
    for step in range(1, spec.steps + 1):
        metrics = trainer.step(measure_branches=step % BRANCHES_EVERY == 1, measure_gain=step % GAIN_EVERY == 0)
        window.append(metrics)
        if step % spec.eval_every == 0:
            lines.append({"kind": "train", "step": step, **_means(window)})
            lines.append(trainer.evaluate(step))
            window = []
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
    return path


class Trainer:
    """Rollouts, grading, the twin's step and validation."""

    def __init__(self, spec, config, twin: Twin, tokenizer, task: Task, questions: dict[str, list[Question]]):
        self.spec, self.twin, self.tokenizer, self.task = spec, twin, tokenizer, task
        self.held_out, self.train_questions = questions[spec.split], questions["train"]
        self.generator = torch.Generator().manual_seed(spec.seed)
        self.order = torch.randperm(len(self.train_questions), generator=self.generator).tolist()
        self.prompts = TeacherPromptBuilder(
            tokenizer=tokenizer,
            srpo=twin.srpo,
            max_length=max_teacher_prompt_length(config, twin.srpo),
            chat_template_kwargs=dict(config.data.apply_chat_template_kwargs),
        )
        self.cpu_seconds, self.sampled_tokens, self.teacher_tokens = 0.0, 0, 0
        self.steps = 0
        self.states: dict[str, dict[str, Any]] = {}

    def step(self, *, measure_branches: bool, measure_gain: bool) -> dict[str, float]:
        clock = time.process_time()
        chosen = [self._next_question() for _ in range(PROMPTS)]
        ids = [question_ids(self.tokenizer, self.task.text(q)) for q in chosen]
        self.twin.model.eval()
        answers = answer(
            self.twin.model,
            self.tokenizer,
            chosen,
            ids,
            self.task,
            n=ROLLOUTS,
            temperature=1.0,
            generator=self.generator,
        )
        self.twin.model.train()
        sampling = time.process_time() - clock
        verdicts = (answers.strict if self.spec.strict else answers.correct).flatten().float()
        rollouts = self._rollouts(chosen, answers.responses, verdicts)
        self.steps += 1
        plan = build_plan(rollouts, self.twin.srpo, step=self.steps, states=self.states)
        self.states = next_states(self.states, plan.routing.seen, self.twin.srpo)
        asked = plan.asked_rows()
        siblings = set(plan.routing.demonstration[asked].tolist()) | set(
            plan.routing.contrast[asked].flatten().tolist()
        )
        messages = {row: [{"role": "user", "content": self.task.text(chosen[row // ROLLOUTS])}] for row in asked}
        shown = {row: answers.responses[row].tolist() for row in siblings - {-1}}
        plan, prompts, _ = self.prompts.build(plan, messages, shown)
        passes, _ = self.prompts.contrast(plan, messages, shown)
        batch = Batch(
            plan=plan,
            prompts=[torch.tensor(ids[row // ROLLOUTS]) for row in range(len(rollouts))],
            responses=answers.responses,
            masks=[torch.ones_like(response) for response in answers.responses],
            rewards=verdicts,
            teacher_prompts={row: torch.tensor(prompt.input_ids) for row, prompt in prompts.items()},
            rollout_log_probs=answers.log_probs,
            passes=[{row: torch.tensor(prompt.input_ids) for row, prompt in made.items()} for made in passes],
        )
        measuring = time.process_time()
        gain = self.twin.teacher_gain(batch) if measure_gain else None
        measuring = time.process_time() - measuring
        metrics = routing_metrics(plan) | self.twin.step(batch, measure_branches=measure_branches)
        metrics |= {} if gain is None else {"srpo/teacher_gain": gain}
        seconds = time.process_time() - clock - measuring - metrics.pop("measuring_seconds", 0.0)
        sampled = sum(len(response) for response in answers.responses)
        taught = sum(
            len(prompt.input_ids) + len(answers.responses[row])
            for made in (prompts, *passes)
            for row, prompt in made.items()
        )
        self.cpu_seconds += seconds
        self.sampled_tokens += sampled
        self.teacher_tokens += taught
        lucky = answers.correct & ~answers.strict
        demonstrations = [row for row in plan.routing.demonstration[plan.routed].tolist() if row >= 0]
        return metrics | {
            "seconds": seconds,
            "sampling_seconds": sampling,
            "response_length": sampled / len(rollouts),
            "form": float(answers.form.float().mean()),
            "lucky_share": int(lucky.sum()) / max(int(answers.correct.sum()), 1),
            "lucky_demonstrations": float(lucky.flatten()[demonstrations].float().mean()) if demonstrations else 0.0,
        }

    def _rollouts(
        self, chosen: Sequence[Question], responses: Sequence[torch.Tensor], verdicts: torch.Tensor
    ) -> list[Rollout]:
        """What routing sees of a step's answers; a question's reference is always the same true derivation of it."""
        texts = [self.task.text(question) for question in chosen]
        references = [self.task.solution(q, random.Random(text)) for q, text in zip(chosen, texts, strict=True)]
        reads = self.twin.srpo.reads_responses
        return [
            Rollout(
                key=f"{i // ROLLOUTS}_{i % ROLLOUTS}_0",
                score=score,
                response_length=len(responses[i]),
                columns={"extra_info": {"solution": references[i // ROLLOUTS]}},
                response=self.tokenizer.decode(responses[i], skip_special_tokens=True) if reads else None,
                question=texts[i // ROLLOUTS],
            )
            for i, score in enumerate(verdicts.tolist())
        ]

    def evaluate(self, step: int) -> dict[str, Any]:
        """avg@16 at T = 0.6 on the held-out questions, with the same random numbers at every step and method.

        `form`, `strict` and `answer_measures` of the same answers; `shown_*` of the teacher's own answers, shown a true
        derivation.
        """
        self.twin.model.eval()
        generator = torch.Generator().manual_seed(10_000 + self.spec.seed)
        ids = [question_ids(self.tokenizer, self.task.text(q)) for q in self.held_out]
        answers = answer(
            self.twin.model,
            self.tokenizer,
            self.held_out,
            ids,
            self.task,
            n=VALIDATION_SAMPLES,
            temperature=0.6,
            generator=generator,
        )
        # The teacher's weights, or the policy's own where there is no teacher.
        shown = answer_shown_truth(
            self.twin.teacher.eval(), self.tokenizer, self.held_out, self.task, n=SHOWN_SAMPLES, generator=generator
        )
        measured = {
            "accuracy": answers.correct,
            "form": answers.form,
            "strict": answers.strict,
            "shown_accuracy": shown.correct,
            "shown_form": shown.form,
        }
        return {
            "kind": "eval",
            "step": step,
            **{name: round(values.float().mean().item(), 5) for name, values in measured.items()},
            **{name: round(value, 5) for name, value in answer_measures(answers).items()},
            "cpu_seconds": round(self.cpu_seconds, 2),
            "sampled_tokens": self.sampled_tokens,
            "teacher_tokens": self.teacher_tokens,
        }

    def _next_question(self) -> Question:
        if not self.order:
            self.order = torch.randperm(len(self.train_questions), generator=self.generator).tolist()
        return self.train_questions[self.order.pop()]


def _means(window: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each metric over the steps of a window that have it."""
    keys = sorted({key for metrics in window for key in metrics})
    values = {key: float(np.mean([metrics[key] for metrics in window if key in metrics])) for key in keys}
    return {key: float(f"{value:.5g}") for key, value in values.items()}


def write_text(path: Path, text: str) -> None:
    """Write a file, and the folder that it stands in, at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
