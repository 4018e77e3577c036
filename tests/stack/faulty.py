"""Parts of a run that misbehave from the second step on, or always; fault tests name them in their overrides."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

from srpo_verl.cpu.vllm_worker import CPUWorkerExtension

STUCK = "SRPO_TEST_STUCK"


class RaisingAgent(SingleTurnAgentLoop):
    """An agent loop with a bug that shows in the second step."""

    async def run(self, sampling_params: dict[str, Any], **kwargs) -> AgentLoopOutput:
        if kwargs["global_steps"] > 1:
            raise ZeroDivisionError("a bug in this agent loop")
        return await super().run(sampling_params, **kwargs)


class SleepingAgent(SingleTurnAgentLoop):
    """One session in four never comes back from the second step on."""

    async def run(self, sampling_params: dict[str, Any], **kwargs) -> AgentLoopOutput:
        if kwargs["global_steps"] > 1 and kwargs["session_id"] == 0:
            await asyncio.sleep(10_000)
        return await super().run(sampling_params, **kwargs)


class OddAgent(SingleTurnAgentLoop):
    """Responses that cannot be trained on, one kind per session: none, special tokens only, tool output only, a bug."""

    async def run(self, sampling_params: dict[str, Any], **kwargs) -> AgentLoopOutput:
        output = await super().run(sampling_params, **kwargs)
        session = kwargs["session_id"]
        if session == 0:
            output.response_ids, output.response_mask, output.response_logprobs = [], [], []
        elif session == 1:
            output.response_ids = [self.tokenizer.pad_token_id] * len(output.response_ids)
        elif session == 2:
            output.response_mask = [0] * len(output.response_mask)
        elif session == 3:
            raise ZeroDivisionError("a bug in this agent loop")
        return output


class StuckWeights(CPUWorkerExtension):
    """vLLM's side of a weight transfer, which never answers after the second one (start, step 1).

    Then there is the file that the environment variable `STUCK` names.
    """

    received = 0

    def update_weights_from_ipc(self, *args: Any, **kwargs: Any):
        if self.received >= 2:
            Path(os.environ[STUCK]).touch()
            time.sleep(10_000)
        self.received += 1
        return super().update_weights_from_ipc(*args, **kwargs)
