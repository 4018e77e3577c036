"""The algorithm of SRPO (arXiv 2604.02288) as pure functions on tensors and text. No verl, no Ray.

routing      which rollout goes to the GRPO branch, which is distilled, and from what
advantages   the GRPO branch's group-relative advantages
divergence   the SDPO branch's divergence, on log-probs
logit_gradient  the same as a loss on logits
listed_log_probs  log-probs of sampled and listed tokens, with one gradient for all losses on them
linear_log_probs  the same out of hidden states and the output layer's weights, without logits
kernels, kernel_choice  passes over logits on a GPU, in Triton, and whether they are used
split_float  float32 weights as bfloat16 and one more byte
targets      top-K ids, teacher log-probs and full-vocabulary entropy out of logits
weighting    entropy-aware token weights
rules, demonstrations, states, question_weights, modulators, schedules
             parts of methods other than SRPO (docs/family.md)
verdicts     which scores of a grader can be trained on
prompts      the prompt that turns the model into its own teacher
turns        rollouts of several turns, with tool calls and their results
turn_prompts  the prompt that shows such a rollout
"""

from .advantages import GroupRewards, group_advantages, leave_one_out_advantages
from .demonstrations import best_sibling, random_sibling, shortest_sibling, wrong_siblings
from .divergence import barycenter_divergence, generalized_jsd, mixed_kl, require_finite, topk_divergence
from .kernel_choice import choose_kernels
from .linear_log_probs import LinearLogProbs, linear_log_probs
from .listed_log_probs import ListedLogProbs, Selection, listed_log_probs
from .logit_gradient import logit_divergence
from .modulators import AdvantageTokens, contrast_advantages, evidence_advantages, rebellious_bonus
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
from .question_weights import frontier_weights, pass_rate_spread
from .rollouts import NOTHING, Nothing, Rollouts
from .routing import PROVIDERS, RULES, GroupStatistics, Routing, group_statistics, route
from .rows import without_autocast
from .rules import all_wrong, difficulty_gates, longest_wrong, pass_rates, positive_advantage, sign_routed
from .schedules import linear_decay, trapezoid
from .split_float import join, split
from .states import past_answer, smoothed_pass_rates, with_answers, with_verdicts
from .targets import student_topk, target_statistics, topk_targets, trust_region_logits
from .turn_prompts import DEMONSTRATIONS, TurnPrompt, check_conversation_template
from .turns import Call, Turn, failed_calls, turns_from_json, turns_of, turns_to_json
from .verdicts import PROBLEMS, checked_verdict
from .weighting import TokenSignals, entropy_weights, mean_one_weights, raw_entropy_weights, turn_numbers, turn_weights

__all__ = [
    "DEMONSTRATIONS",
    "NOTHING",
    "PROBLEMS",
    "PROVIDERS",
    "RULES",
    "SECTIONS",
    "TEMPLATE",
    "AdvantageTokens",
    "BadMessages",
    "Call",
    "GroupRewards",
    "GroupStatistics",
    "LinearLogProbs",
    "ListedLogProbs",
    "Nothing",
    "PromptParts",
    "Rollouts",
    "Routing",
    "Selection",
    "TeacherPrompt",
    "TokenSignals",
    "Turn",
    "TurnPrompt",
    "all_wrong",
    "barycenter_divergence",
    "best_sibling",
    "check_conversation_template",
    "checked_verdict",
    "choose_kernels",
    "contrast_advantages",
    "difficulty_gates",
    "entropy_weights",
    "evidence_advantages",
    "failed_calls",
    "frontier_weights",
    "generalized_jsd",
    "group_advantages",
    "group_statistics",
    "join",
    "leave_one_out_advantages",
    "linear_decay",
    "linear_log_probs",
    "listed_log_probs",
    "logit_divergence",
    "longest_wrong",
    "mean_one_weights",
    "mixed_kl",
    "pass_rate_spread",
    "pass_rates",
    "past_answer",
    "positive_advantage",
    "random_sibling",
    "raw_entropy_weights",
    "rebellious_bonus",
    "require_finite",
    "route",
    "shortest_sibling",
    "sign_routed",
    "smoothed_pass_rates",
    "split",
    "strip_thinking",
    "student_topk",
    "target_statistics",
    "teacher_messages",
    "teacher_prompt_ids",
    "topk_divergence",
    "topk_targets",
    "trapezoid",
    "trust_region_logits",
    "turn_numbers",
    "turn_weights",
    "turns_from_json",
    "turns_of",
    "turns_to_json",
    "visible_answer",
    "with_answers",
    "with_verdicts",
    "without_autocast",
    "wrong_siblings",
]
