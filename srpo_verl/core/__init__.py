"""The algorithm of SRPO (arXiv 2604.02288) as pure functions on tensors and text. No verl, no Ray.

routing      which rollout goes to the GRPO branch, which is distilled, and from what
advantages   the GRPO branch's group-relative advantages
divergence   the SDPO branch's divergence, on log-probs
logit_gradient  the same as a loss on logits
targets      top-K ids, teacher log-probs and full-vocabulary entropy out of logits
weighting    entropy-aware token weights
verdicts     which scores of a grader can be trained on
prompts      the prompt that turns the model into its own teacher
"""

from .advantages import GroupRewards, group_advantages, leave_one_out_advantages
from .divergence import generalized_jsd, topk_divergence
from .logit_gradient import logit_divergence
from .prompts import (
    SECTIONS,
    TEMPLATE,
    BadMessages,
    PromptParts,
    TeacherPrompt,
    strip_thinking,
    teacher_messages,
    teacher_prompt_ids,
    visible_answer,
)
from .routing import PROVIDERS, RULES, GroupStatistics, Rollouts, Routing, group_statistics, route
from .targets import student_topk, target_statistics, topk_targets, trust_region_logits
from .verdicts import PROBLEMS, checked_verdict
from .weighting import TokenSignals, entropy_weights, mean_one_weights, raw_entropy_weights

__all__ = [
    "PROBLEMS",
    "PROVIDERS",
    "RULES",
    "SECTIONS",
    "TEMPLATE",
    "BadMessages",
    "GroupRewards",
    "GroupStatistics",
    "PromptParts",
    "Rollouts",
    "Routing",
    "TeacherPrompt",
    "TokenSignals",
    "checked_verdict",
    "entropy_weights",
    "generalized_jsd",
    "group_advantages",
    "group_statistics",
    "leave_one_out_advantages",
    "logit_divergence",
    "mean_one_weights",
    "raw_entropy_weights",
    "route",
    "strip_thinking",
    "student_topk",
    "target_statistics",
    "teacher_messages",
    "teacher_prompt_ids",
    "topk_divergence",
    "topk_targets",
    "trust_region_logits",
    "visible_answer",
]
