"""The algorithm of SRPO (arXiv 2604.02288) as pure functions on tensors and text. No verl, no Ray.

routing      which rollout goes to the GRPO branch, which is distilled, and from what
advantages   the GRPO branch's group-relative advantages
divergence   the SDPO branch's divergence, on log-probs and on logits
targets      top-K ids, teacher log-probs and full-vocabulary entropy out of logits
weighting    entropy-aware token weights
verdicts     which scores of a grader can be trained on
prompts      the prompt that turns the model into its own teacher
"""

from .advantages import group_advantages
from .divergence import logit_divergence, topk_divergence
from .prompts import BadMessages, PromptParts, TeacherPrompt, strip_thinking, teacher_messages, teacher_prompt_ids
from .routing import GroupStatistics, Routing, group_statistics, route
from .targets import student_topk, target_statistics, topk_targets, trust_region_logits
from .verdicts import PROBLEMS, checked_verdict
from .weighting import entropy_weights

__all__ = [
    "PROBLEMS",
    "BadMessages",
    "GroupStatistics",
    "PromptParts",
    "Routing",
    "TeacherPrompt",
    "checked_verdict",
    "entropy_weights",
    "group_advantages",
    "group_statistics",
    "logit_divergence",
    "route",
    "strip_thinking",
    "student_topk",
    "target_statistics",
    "teacher_messages",
    "teacher_prompt_ids",
    "topk_divergence",
    "topk_targets",
    "trust_region_logits",
]
