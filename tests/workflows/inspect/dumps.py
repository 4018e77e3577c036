"""A run with dumped steps, as the trainer leaves it: two groups, hostile text, values that can be checked by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from srpo_verl.config import SRPOConfig
from srpo_verl.core import TeacherPrompt
from srpo_verl.training.step.routed_tokens import RoutedTokens
from srpo_verl.training.step.routing_plan import Rollout, build_plan
from srpo_verl.training.step.step_dump import Looked, dump_step
from srpo_verl.training.step.step_signals import StepView, step_signals
from tests.workflows.report.run_folders import NAUGHTY, config, line, write_start

ENTROPY = {1: [0.0, math.log(2.0), 5.0], 2: [math.log(4.0), 0.0]}
# Of the loss; the last token of rollout 1 is a tool's.
DIVERGENCE = {1: [0.25, 0.125, 0.0], 2: [0.5, 0.0625]}
# By token id; 9 is a control token of a chat template.
WORDS = {
    0: "one",
    1: " two",
    2: " 42",
    3: NAUGHTY,
    4: "</script><script>document.title='owned'</script>",
    9: "<|im_end|>",
}


def write_run(folder: Path, *, steps: tuple[int, ...] = (5, 10), groups: int = 4, **settings_of_run: Any) -> Path:
    """A run in `folder` with these steps dumped; none of them: one that was started without `srpo.inspect_dir`."""
    srpo = {"inspect_dir": str(folder / "inspect") if steps else None, "inspect_freq": 5, "inspect_groups": groups}
    settings = config("srpo", seed=0, steps=20, **srpo)
    write_start(folder, settings, [line(1, training__global_step=1)])
    for step in steps:
        write_step(folder / "inspect", step, SRPOConfig(inspect_groups=groups, **settings_of_run))
    return folder


def write_step(folder: Path, step: int, srpo: SRPOConfig) -> Path | None:
    """Group `a`: rollout 0 is correct, 1 and 2 are not (the last token of 1 is a tool's). Group `b`: both wrong."""
    rollouts = [
        Rollout("a_0_0", 1.0, 3),
        Rollout("a_1_0", 0.0, 3),
        Rollout("a_2_0", 0.0, 2),
        Rollout("b_0_0", 0.0, 2),
        Rollout("b_1_0", 0.0, 2),
    ]
    plan = build_plan(rollouts, srpo, group_size=3, step=step)
    responses = [torch.tensor(ids) for ids in ([0, 1, 9], [3, 4, 9], [0, 9], [0, 2], [1, 2])]
    masks = [torch.ones(len(ids)) for ids in responses]
    masks[1][2] = 0.0
    asked = plan.asked_rows()
    entropy = [torch.tensor(ENTROPY[row]) for row in asked]
    half, quarter = ([torch.full_like(row, math.log(p)) for row in entropy] for p in (0.5, 0.25))
    tokens = RoutedTokens(asked, entropy, entropy, quarter, half) if asked else None
    rewards = torch.tensor([rollout.score for rollout in rollouts])
    signals = step_signals(plan, srpo, rewards=rewards, masks=masks, normalize_by_std=False, tokens=tokens)
    looked = Looked(
        scalar=plan.advantages(rewards, srpo, normalize_by_std=False),
        prompts=dict.fromkeys(asked, TeacherPrompt([0, 4, 9])),
        questions={row: [2] for row in range(5)},
        divergence={row: torch.tensor(DIVERGENCE[row]) for row in asked} if srpo.logit_loss else None,
    )
    view = StepView(plan, responses, masks, tokens, signals, lambda ids: "".join(WORDS[n] for n in ids.tolist()))
    return dump_step(str(folder), view, looked, srpo)
