"""An agent loop whose answers are as long as they are told: most are short, the longest ten times as long."""

from __future__ import annotations

from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

from srpo_verl.training.rollout.rollout_seeds import rollout_seed

SHORTEST, LONGEST = 64, 640
# Of the uniform number that makes a length: median, mean and 99th percentile are 1.15, 2.0 and 9.1 times the shortest.
POWER = 4


def answer_length(uid: str, session: int) -> int:
    """Tokens of one rollout; the same in every run."""
    uniform = rollout_seed(run=0, step=0, prompt=uid, sample=session) / 2**31
    return round(SHORTEST * (LONGEST / SHORTEST) ** (uniform**POWER))


class LongTailAgent(SingleTurnAgentLoop):
    """One answer to one prompt, as long as it is told."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        tokens = answer_length(kwargs["uid"], kwargs["session_id"])
        return await super().run({**sampling_params, "max_tokens": tokens, "ignore_eos": True}, **kwargs)
