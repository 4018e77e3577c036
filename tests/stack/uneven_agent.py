"""Answers of given lengths, so that the asynchronous mode has something to interrupt."""

from __future__ import annotations

from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.workers.rollout.replica import TokenOutput

SHORT, LONG = 4, 400
# Long answers begun with weights older than those of this step wait for an update; a run resumed there waits for none.
WAIT_BEFORE = 2


class UnevenAgent(SingleTurnAgentLoop):
    """Every second prompt of a batch has answers a hundred times as long as the others."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        tokens = SHORT
        if int(kwargs["uid"].rsplit("-", 1)[1]) % 2:
            tokens = LONG
            self.server_manager = UntilNewWeights(self.server_manager)  # of this rollout: verl makes an agent for each
        return await super().run({**sampling_params, "max_tokens": tokens, "ignore_eos": True}, **kwargs)


class UntilNewWeights:
    """The LLM client, but no answer ends before the engine got other weights than those that the answer began with.

    verl looks every two seconds whether enough groups have ended. A fast machine has written the long answers by then,
    and there is nothing to interrupt: so the second half is drawn again until an update has come in between.
    """

    def __init__(self, client: Any):
        self.client = client

    async def generate(self, *, prompt_ids: list[int], sampling_params: dict[str, Any], **kwargs: Any) -> TokenOutput:
        output = await self.client.generate(prompt_ids=prompt_ids, sampling_params=sampling_params, **kwargs)
        begun = output.extra_fields["min_global_steps"]
        tokens = sampling_params["max_tokens"]
        kept = tokens // 2
        while output.extra_fields["max_global_steps"] == begun < WAIT_BEFORE:
            rest = await self.client.generate(
                prompt_ids=[*prompt_ids, *output.token_ids[:kept]],
                sampling_params={**sampling_params, "max_tokens": tokens - kept},
                **kwargs,
            )
            output.token_ids[kept:] = rest.token_ids
            output.log_probs[kept:] = rest.log_probs
            output.extra_fields["max_global_steps"] = rest.extra_fields["max_global_steps"]
        return output
