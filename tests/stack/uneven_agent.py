"""Answers of given lengths, so that the asynchronous mode has something to interrupt."""

from __future__ import annotations

from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

SHORT, LONG = 4, 400


class UnevenAgent(SingleTurnAgentLoop):
    """Every second prompt of a batch has answers a hundred times as long as the others."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        tokens = LONG if int(kwargs["uid"].rsplit("-", 1)[1]) % 2 else SHORT
        return await super().run({**sampling_params, "max_tokens": tokens, "ignore_eos": True}, **kwargs)
