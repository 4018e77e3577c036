"""Rewards that nothing can be learned from: no verdict at all, or a scale that is not `srpo.score_range`.

Without this every answer, or every wrong one, would count nowhere, and the run would go on to its end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from srpo_verl.config import SRPOConfig
from srpo_verl.training.step.routing_plan import Rollout, RoutingPlan

# Verdicts out of range, as a share of a batch, that are no longer a grader's single mistakes.
_SHARE = 0.1


class ScoreRangeError(ValueError):
    """The reward function gives wrong answers a score that `srpo.score_range` does not allow."""


class NoVerdictError(ValueError):
    """The reward function gave not one verdict on what a run sampled first."""


class FirstVerdicts:
    """Looks at the verdicts of a run until they can be learned from; later ones are the guards' to watch."""

    def __init__(self, srpo: SRPOConfig):
        self.srpo = srpo
        self._wrong_answers_count = False
        # Whose answers had a verdict: "" is a batch of training, else a data source of the validation.
        self._decided: set[str] = set()

    def look(self, plan: RoutingPlan) -> None:
        """A batch of training.

        Raises:
            ScoreRangeError: no answer is wrong, and a tenth of all verdicts, two at least, are out of range.
            NoVerdictError: two answers or more, and none has a verdict.
        """
        real = [rollout for rollout in plan.rollouts if not rollout.padding]
        if not self._wrong_answers_count:
            self._wrong_answers_count = bool((plan.counted & ~plan.routing.correct).any())
            outside = [rollout for rollout in real if _is_outside(rollout)]
            if not self._wrong_answers_count and len(outside) >= max(2, _SHARE * len(real)):
                raise ScoreRangeError(
                    f"{len(outside)} of {len(real)} rollouts have a score outside srpo.score_range="
                    f"{list(self.srpo.score_range or ())} and so count nowhere, and not one answer is wrong with a "
                    "score inside: nothing would ever be distilled. Set srpo.score_range to the least and greatest "
                    "score of your reward function, as [-1,1], and srpo.threshold to the least score of a right "
                    "answer; or let it give `acc`, 0 or 1, beside the score"
                )
        self._look("", [rollout.reward_info for rollout in real if rollout.undecided], len(real))

    def look_at_validation(self, sources: Sequence[str], infos: Mapping[str, Sequence[Any]]) -> None:
        """A validation: (n,) names of data sources, and of each key of the grader's infos its (n,) values.

        Raises:
            NoVerdictError: two answers or more to the questions of a data source, and none has a verdict.
        """
        failed = infos.get("infra_error", [])
        for source in sorted(set(sources)) if failed else ():
            rows = [row for row, name in enumerate(sources) if name == source]
            undecided = [{key: values[row] for key, values in infos.items()} for row in rows if failed[row]]
            self._look(source, undecided, len(rows))

    def _look(self, source: str, undecided: Iterable[Mapping[str, Any] | None], answers: int) -> None:
        reasons = Counter(_reason(info or {}) for info in undecided)
        if reasons.total() < answers:
            self._decided.add(source)
        if source in self._decided or answers < 2:
            return
        whose = f" to questions of the data source {source}" if source else ""
        (reason, _), *others = reasons.most_common()
        more = f" (and {len(others)} other reasons)" if others else ""
        raise NoVerdictError(
            f"none of {answers} answers{whose} got a verdict, so there is nothing to learn from: {reason}{more}. Mend "
            "the reward function, reward.custom_reward_function.reward_kwargs, or what it needs; `srpo grade` tries it "
            "on answers of your own"
        )


def _is_outside(rollout: Rollout) -> bool:
    return (rollout.reward_info or {}).get("bad_score") == "out_of_range"


def _reason(info: Mapping[str, Any]) -> str:
    if info.get("error"):
        return str(info["error"])
    problem = info.get("bad_score")
    return f"its score is {str(problem).replace('_', ' ')}" if problem else "the log says why"
