"""verl's agent loop worker, with a deadline for the verdict, checked scores, and a note about each rollout that fails.

A verdict that is missing, no number, not finite or out of range would end verl's worker for that prompt or, as NaN,
poison the means of the batch. Here such a rollout gets score 0 and counts nowhere; the driver counts it by kind.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import ray
from verl.experimental.agent_loop import AgentLoopOutput
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from srpo_verl.config import settings
from srpo_verl.core import checked_verdict, turns_from_json, turns_of, turns_to_json
from srpo_verl.training.fields import TOOLS, TURNS
from srpo_verl.training.rollout import tool_agent_loop  # noqa: F401 - registers itself in place of verl's
from srpo_verl.training.rollout.rollout_seeds import rollout_seed
from srpo_verl.training.rollout.tool_schemas import listed_schemas
from srpo_verl.training.watch.rollout_failures import note_failure
from srpo_verl.verl_names.driver import lists_tools, undecorated

# Key of the grader's info under which the driver finds what was wrong with a verdict.
BAD_SCORE = "bad_score"


class NoVerdict(RuntimeError):
    """The reward worker did not answer in time."""


class EmptyResponse(RuntimeError):
    """The rollout engine returned no token."""


class SRPOAgentLoopWorker(undecorated(AgentLoopWorkerTQ)):  # type: ignore[misc]
    """One of the processes that run the rollouts of a batch."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.srpo = settings(self.config.srpo)

    async def _run_agent_loop(
        self, sampling_params: dict[str, Any], trajectory: dict[str, Any], *, uid: str, session_id: int, **kwargs: Any
    ) -> Any:
        if self.srpo.seeded_rollouts:
            seed = self._seed(trajectory, uid, session_id, kwargs)
            sampling_params = {**sampling_params, "seed": seed}
        if self.tools:
            # Becomes a field of the rollout, beside the columns of its row.
            kwargs[TOOLS] = listed_schemas(self.tools, kwargs, by_tool_agent=lists_tools(kwargs["agent_name"]))
        try:
            return await super()._run_agent_loop(sampling_params, trajectory, uid=uid, session_id=session_id, **kwargs)
        except Exception as error:
            await note_failure(uid, session_id, error, validate=trajectory["validate"])
            raise

    async def _agent_loop_postprocess(
        self, output: AgentLoopOutput | list[AgentLoopOutput], validate: bool, **kwargs: Any
    ) -> None:
        outputs = output if isinstance(output, list) else [output]
        # verl stores what it is called with as fields of every output of the session. The reward function sees the
        # extra fields of the last one, among its extra_info.
        kwargs[TURNS] = session_turns([one.extra_fields.pop(TURNS, None) for one in outputs])
        if outputs:
            outputs[-1].extra_fields[TURNS] = kwargs[TURNS]
        await super()._agent_loop_postprocess(output, validate, **kwargs)

    def _seed(self, trajectory: dict[str, Any], uid: str, session_id: int, row: dict[str, Any]) -> int:
        """vLLM's own sampling state dies with its process; this makes a resumed run draw what it would have drawn."""
        prompt = uid
        if trajectory["validate"]:  # its uids are random
            prompt = f"validation {row.get('index')} {json.dumps(row['raw_prompt'], sort_keys=True, default=str)}"
        run = self.config.actor_rollout_ref.rollout.seed
        return rollout_seed(run=run, step=int(trajectory["step"]), prompt=prompt, sample=session_id)

    async def _compute_score(self, outputs: list[AgentLoopOutput], kwargs: dict) -> None:
        final = outputs[-1]
        if not final.response_ids:
            raise EmptyResponse("the rollout engine returned no token")
        deadline = self.srpo.watchdog.reward or None
        try:
            await asyncio.wait_for(super()._compute_score(outputs, kwargs), deadline)
        except TimeoutError:
            raise NoVerdict(
                f"no verdict of the reward worker within srpo.watchdog.reward={deadline:g} s; data source "
                f"{kwargs.get('data_source')}"
            ) from None
        except KeyError as error:
            # verl reads result["score"] in the reward worker.
            if getattr(error, "cause", error).args != ("score",):
                raise
            final.reward_score = None
        final.extra_fields.pop(TURNS, None)  # the field of that name has them
        if self.reward_loop_worker_handles is None:
            return  # a reward model gives its verdicts later, per batch
        info = final.extra_fields.get("reward_extra_info")
        score, info, problem = checked_verdict(final.reward_score, info, allowed=self.srpo.score_range)
        final.reward_score = score
        final.extra_fields["reward_extra_info"] = {**info, BAD_SCORE: problem}


def session_turns(noted: Sequence[Any]) -> str:
    """The turns of a session as JSON, those of all its outputs in their order.

    Args:
        noted: per output what its agent loop put into the extra field `srpo_turns`: chat messages, those messages as
            JSON, or None.

    Raises:
        ValueError: something else.
    """
    turns = [turns_from_json(one) if isinstance(one, str) else turns_of(one) for one in noted if one is not None]
    return turns_to_json([turn for of_one in turns for turn in of_one])


class SRPOAgentLoopManager(AgentLoopManagerTQ):
    """`actor_rollout_ref.rollout.agent.agent_loop_manager_class` of our configs."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(SRPOAgentLoopWorker)
