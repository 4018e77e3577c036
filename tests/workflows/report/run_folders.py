"""Writes run folders as a training run leaves them, with made-up but plausible numbers."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

METHODS: dict[str, dict[str, Any]] = {
    "grpo": {"route": "none", "policy_gradient": "all", "advantage_mix": 0.0, "beta": 1.0},
    "sdpo": {"route": "all", "policy_gradient": "none", "advantage_mix": 0.0, "beta": 0.0},
    "srpo": {"route": "incorrect", "policy_gradient": "unrouted", "advantage_mix": 0.0, "beta": 1.0},
}
RATE = {"grpo": 0.10, "sdpo": 0.30, "srpo": 0.16}
TOP = {"grpo": 0.78, "sdpo": 0.74, "srpo": 0.82}
NAUGHTY = '<script>document.title="owned"</script><img src=http://example.com/x.png onerror=alert(1)> & "quotes"'


def config(method: str, *, seed: int, steps: int, model: str = "Qwen/Qwen3-8B", **srpo: Any) -> dict[str, Any]:
    return {
        "srpo": {**METHODS[method], "dump_dir": None, "dump_freq": 1, **srpo},
        "data": {"seed": seed, "train_files": "chemistry/train.parquet", "train_batch_size": 32},
        "actor_rollout_ref": {"model": {"path": model}, "rollout": {"seed": seed, "n": 8}},
        "trainer": {"experiment_name": method, "total_training_steps": steps, "default_local_dir": "runs/x"},
    }


def write_start(
    place: Path,
    settings: Mapping[str, Any],
    lines: Iterable[Mapping[str, Any]],
    *,
    time: str = "20260101-000000",
    record: Mapping[str, Any] | None = None,
) -> Path:
    """One start of a run in `place` (its `trainer.default_local_dir`); returns the start's folder."""
    start = place / "srpo_run" / time
    start.mkdir(parents=True)
    (start / "config.yaml").write_text(json.dumps(settings))
    found = {
        "versions": {"verl": "0.9.1", "torch": "2.11.0"},
        "git": {"commit": "0123456789abcdef", "dirty": False},
        "differs_from_table_3": {"data.max_response_length": [8192, 4096]},
    }
    (start / "run.json").write_text(json.dumps(found if record is None else record))
    (start / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return start


def line(step: int, **data: float | None) -> dict[str, Any]:
    """A line of verl's file logger; `__` stands for `/` in a name."""
    return {"step": step, "data": {name.replace("__", "/"): value for name, value in data.items()}}


def learning(method: str, *, seed: int, steps: int, sources: Iterable[str], every: int = 5) -> list[dict[str, Any]]:
    """The metrics of a run that learns, as noisy as real ones; the same for the same arguments."""
    chance = random.Random(f"{method} {seed}")
    found = []
    for step in range(steps + 1):
        data: dict[str, float] = {}
        done = 1 - math.exp(-RATE[method] * step / 4)
        if step % every == 0:
            for place, source in enumerate(sources):
                top, start = TOP[method] - 0.05 * place, 0.41 + 0.09 * place
                data[f"val-core/{source}/acc/mean@16"] = start + (top - start) * done + chance.gauss(0, 0.008)
        if step:
            data |= {
                "timing_s/step": 80 - 8 * done + chance.gauss(0, 2) + 30 * (step % 20 == 0),
                **({"timing_s/save_checkpoint": 30.0} if step % 20 == 0 else {}),
                **({"timing_s/testing": 200.0} if step % every == 0 else {}),
                "srpo/accuracy": 0.4 + 0.4 * done + chance.gauss(0, 0.03),
                "actor/entropy": 0.45 * math.exp(-done) + chance.gauss(0, 0.01),
                "response_length/mean": 900 + (400 if method == "grpo" else -200) * done + chance.gauss(0, 20),
                "actor/grad_norm": 0.4 + chance.random() / 5,
                "srpo/routed_share": 0.0 if method == "grpo" else 0.4 - 0.25 * done + chance.gauss(0, 0.02),
            }
            if method != "grpo":
                data |= {
                    "srpo/divergence": 0.2 - 0.1 * done + chance.gauss(0, 0.004),
                    "srpo/student_entropy": 0.5 - 0.2 * done + chance.gauss(0, 0.02),
                    "srpo/teacher_entropy": 0.4 - 0.2 * done + chance.gauss(0, 0.02),
                }
            if method == "srpo" and step % 4 == 0:
                data |= {"srpo/grad_norm/grpo": 0.3 + chance.random() / 9, "srpo/grad_norm/sdpo": 0.2 - 0.1 * done}
        found.append({"step": step, "data": data})
    return found


def write_rollouts(folder: Path, steps: Iterable[int], *, prompts: bool = True, everything: bool = True) -> None:
    """Both dumps: two groups of four rollouts a step, of which the failed ones of the first are distilled."""
    chance = random.Random(0)
    for step in steps:
        routed, dumped = [], []
        for group in ("aaaa", "bbbb"):
            for rollout in range(4):
                correct = group == "aaaa" and rollout == 1
                answer = f"{chance.randint(1, 9)} + 2 = {NAUGHTY if rollout == 0 else chance.randint(1, 9)}"
                uid = f"{group}-{step}"
                dumped.append(
                    {
                        "input": f"user\nWhat is 1 + {step}?\nassistant\n",
                        "output": answer,
                        "gts": str(step + 1),
                        "score": float(correct),
                        "step": step,
                        "uid": f"{uid}_{rollout}_0",
                    }
                )
                if group == "aaaa" and not correct:
                    routed.append(
                        {
                            "step": step,
                            "uid": uid,
                            "rollout": rollout,
                            "demonstration": 1,
                            "provider": "sibling",
                            "score": 0.0,
                            "teacher_prompt": f"<|im_start|>user\nWhat is 1 + {step}?\nCorrect solution:\n\n{answer}",
                            "response": answer,
                            "truncated": False,
                            "dropped_tokens": 0,
                        }
                    )
        for name, lines, wanted in (("teacher_prompts", routed, prompts), ("rollouts", dumped, everything)):
            if wanted:
                (folder / name).mkdir(parents=True, exist_ok=True)
                text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in lines)
                (folder / name / f"{step}.jsonl").write_text(text, encoding="utf-8")


def write_run(
    folder: Path,
    method: str,
    *,
    seed: int = 0,
    steps: int = 60,
    sources: Iterable[str] = ("chemistry",),
    model: str = "Qwen/Qwen3-8B",
    rollouts: bool = False,
    **srpo: Any,
) -> Path:
    """A finished run that learned."""
    sources = list(sources)
    write_start(
        folder,
        config(method, seed=seed, steps=steps, model=model, **srpo),
        learning(method, seed=seed, steps=steps, sources=sources),
    )
    if rollouts:
        write_rollouts(folder, range(1, steps + 1, 10))
    return folder
