"""Verifiable rewards: math, code, multiple choice and tool use, in verl's reward-function contract.

The configs of ``srpo_verl`` use it; others do with::

    reward.custom_reward_function.path=pkg://reward_fns
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.mode=strict

and add your own data source with :func:`register` (see ``docs/rewards.md``). Importing this package is cheap: neither
torch, verl nor math-verify is imported until an answer needs it.
"""

from reward_fns.compute import compute_score
from reward_fns.registry import UnknownDataSource, known_sources, register
from reward_fns.result import RESULT_KEYS, GraderUnavailable

__all__ = ["RESULT_KEYS", "GraderUnavailable", "UnknownDataSource", "compute_score", "known_sources", "register"]
