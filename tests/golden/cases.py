"""What is recorded: the seven methods as their YAML composes them, and one variant each of what a key can change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.compose import compose
from tests.golden.batch import OUTPUTS, PADDING, SESSIONS

METHODS = ("grpo", "sdpo", "srpo", "sdpo_correct_only", "sdpo_incorrect_only", "srpo_routing_only", "advantage_mix")

# Name of the case -> config and overrides.
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    **{name: (name, ()) for name in METHODS},
    "support_teacher": ("srpo", ("srpo.support=teacher",)),
    "alpha_0": ("srpo", ("srpo.alpha=0",)),
    "alpha_1": ("srpo", ("srpo.alpha=1",)),
    "beta_2": ("srpo", ("srpo.beta=2",)),
    "no_tail": ("srpo", ("srpo.add_tail=false",)),
    "trust_region": ("srpo", ("srpo.teacher.kind=trust_region",)),
    "frozen": ("srpo", ("srpo.teacher.kind=frozen",)),
    "live": ("srpo", ("srpo.teacher.kind=live",)),
    "normalized_by_std": ("srpo", ("algorithm.norm_adv_by_std_in_grpo=true",)),
    "feedback": ("srpo", ("srpo.providers=[sibling,feedback]",)),
    "uncorrected": ("srpo", ("algorithm.rollout_correction.rollout_is=null",)),
    "measured": ("srpo", ("srpo.grad_norm_freq=1", "srpo.teacher_gain_freq=1")),
    # Two updates per step: the second is off policy, and some ratios of distilled tokens are clipped.
    "one_pass": ("srpo", ("srpo.one_pass=true",)),
    "fused_linear": ("srpo", ("srpo.fused_linear=true",)),
    "two_updates": ("srpo", ("actor_rollout_ref.actor.ppo_mini_batch_size=3", "srpo.ratio_clip=1.05")),
}
ROWS = len(OUTPUTS) + PADDING


def config_of(case: str, model: Path) -> Any:
    """The whole config of a case: several micro-batches per update, and a learning rate whose updates are seen."""
    name, overrides = CASES[case]
    small = [
        "platform=cpu",
        f"actor_rollout_ref.model.path={model}",
        f"actor_rollout_ref.rollout.n={SESSIONS}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={ROWS // SESSIONS}",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=192",
        "actor_rollout_ref.actor.optim.lr=1e-2",
        "actor_rollout_ref.actor.optim.lr_warmup_steps=0",
        "actor_rollout_ref.actor.optim.total_training_steps=10",
        "srpo.topk=8",
        "srpo.chunk_size=16",
        "srpo.teacher_gain_freq=0",
        # The record is of verl's log-probs; `one_pass` and `fused_linear` are cases of their own.
        "srpo.one_pass=false",
    ]
    return compose(name, [*small, *overrides])
