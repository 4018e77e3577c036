"""Rewards on another scale than `srpo.score_range`: without this, every wrong answer would count nowhere."""

from __future__ import annotations

from srpo_verl.config import SRPOConfig
from srpo_verl.training.step.routing_plan import Rollout, RoutingPlan

# Verdicts out of range, as a share of a batch, that are no longer a grader's single mistakes.
_SHARE = 0.1


class ScoreRangeError(ValueError):
    """The reward function gives wrong answers a score that `srpo.score_range` does not allow."""


class ScoreRange:
    """Looks at the batches of a run until one has a wrong answer with a score in the range."""

    def __init__(self, srpo: SRPOConfig):
        self.srpo = srpo
        self._wrong_answers_count = False

    def look(self, plan: RoutingPlan) -> None:
        """Raises ScoreRangeError if no answer is wrong and a tenth of all verdicts, two at least, are out of range."""
        if self._wrong_answers_count:
            return
        self._wrong_answers_count = bool((plan.counted & ~plan.routing.correct).any())
        real = [rollout for rollout in plan.rollouts if not rollout.padding]
        outside = [rollout for rollout in real if _is_outside(rollout)]
        if self._wrong_answers_count or len(outside) < max(2, _SHARE * len(real)):
            return
        allowed = list(self.srpo.score_range or ())
        raise ScoreRangeError(
            f"{len(outside)} of {len(real)} rollouts have a score outside srpo.score_range={allowed} and so count "
            "nowhere, and not one answer is wrong with a score inside: nothing would ever be distilled. Set "
            "srpo.score_range to the least and greatest score of your reward function, as [-1,1], and srpo.threshold "
            "to the least score of a right answer; or let it give `acc`, 0 or 1, beside the score"
        )


def _is_outside(rollout: Rollout) -> bool:
    return (rollout.reward_info or {}).get("bad_score") == "out_of_range"
