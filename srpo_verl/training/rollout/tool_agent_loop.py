"""verl's `ToolAgentLoop`, which notes its turns and whose tools have a deadline.

What a tool does wrong ends neither the run nor the rollout: one that raises, hangs, ends its thread or answers what
cannot be used has failed, the model reads so, and the driver counts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from verl.experimental.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.agent_loop import register
from verl.experimental.agent_loop.tool_agent_loop import AgentData, AgentState, ToolAgentLoop
from verl.tools.schemas import ToolResponse

from srpo_verl.config import settings
from srpo_verl.core import turns_of, turns_to_json
from srpo_verl.training.fields import TOOL_COUNTS, TURNS
from srpo_verl.training.rollout.tool_thread import NoAnswer, ToolThread

# Key of a tool's third answer, its metrics, by which it says itself that the call failed.
FAILED = "failed"


@register("tool_agent")
class SRPOToolAgentLoop(ToolAgentLoop):
    """Takes the place of verl's under its own name, `tool_agent`, in our agent loop workers.

    Its output has two extra fields: `srpo_turns`, the turns as `core.turns` has them, as JSON; and `srpo_tool_counts`,
    how many calls there were, how many failed, and how many of these had no answer in time.
    """

    threads = ToolThread()

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.deadline = settings(self.config.srpo).watchdog.tool or None
        self.counts = {"calls": 0, "failed": 0, "no_answer": 0}
        self.prompt_messages = 0
        # Whether a call failed: by the call, then by the number of the message that answers it.
        self.outcomes: dict[int, bool] = {}
        self.failed: dict[int, bool] = {}

    async def run(self, sampling_params: dict[str, Any], *args: Any, **kwargs: Any) -> AgentLoopOutput:
        output = await super().run(sampling_params, *args, **kwargs)
        if not output.response_mask:
            output.response_ids = []  # of a rollout without a token verl takes the prompt for the response
        return output

    async def _handle_pending_state(self, agent_data: AgentData, *args: Any, **kwargs: Any) -> AgentState:
        self.prompt_messages = len(agent_data.messages)
        return await super()._handle_pending_state(agent_data, *args, **kwargs)

    async def _handle_generating_state(self, agent_data: AgentData, *args: Any, **kwargs: Any) -> AgentState:
        before = len(agent_data.messages)
        state = await super()._handle_generating_state(agent_data, *args, **kwargs)
        if state == AgentState.TERMINATED:
            messages = list(agent_data.messages)
            if len(messages) == before:
                # A limit was reached: verl leaves the turn out, and what is beyond the response's length.
                excess = max(len(agent_data.response_mask) - self.response_length, 0)
                ids = agent_data.response_ids[: len(agent_data.response_ids) - excess]
                messages.append({"role": "assistant", "content": self.tokenizer.decode(ids)})
            self._note(agent_data, messages)
        return state

    async def _handle_processing_tools_state(self, agent_data: AgentData) -> AgentState:
        before = len(agent_data.messages)
        calls = agent_data.tool_calls[: self.max_parallel_calls]
        state = await super()._handle_processing_tools_state(agent_data)
        for number, call in enumerate(calls, start=before):
            self.failed[number] = self.outcomes.pop(id(call))
        if state == AgentState.TERMINATED:
            self._note(agent_data, agent_data.messages)
        return state

    async def _call_tool(
        self, tool_call: Any, tools_kwargs: dict[str, Any], agent_data: AgentData
    ) -> tuple[ToolResponse, float, dict]:
        self.counts["calls"] += 1
        call = super()._call_tool
        name = tool_call.name
        try:
            answer = await self.threads.run(lambda: call(tool_call, tools_kwargs, agent_data), self.deadline)
            response, reward, info = self._usable(*answer)
            failed = _says_failed(name, response.text, info)
        except NoAnswer:
            self.counts["no_answer"] += 1
            failed, reward, info = True, 0.0, {}
            response = ToolResponse(text=f"Error executing tool '{name}': no answer within {self.deadline:g} s")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is counted, and the model reads it
            # verl catches what `execute` raises, but not what is wrong with its answer, nor what `release` raises.
            failed, reward, info = True, 0.0, {}
            response = ToolResponse(text=self._clipped(f"Error executing tool '{name}': {error}"))
        self.counts["failed"] += failed
        self.outcomes[id(tool_call)] = failed
        return response, reward, info

    def _usable(self, response: ToolResponse, reward: Any, info: Any) -> tuple[ToolResponse, float, dict]:
        if response.video or (response.image and not getattr(self.processor, "image_processor", None)):
            raise ValueError("it answered with an image or a video, which this model cannot read")
        if response.image:
            return response, reward, info
        return ToolResponse(text=self._clipped(response.text or "")), float(reward or 0.0), dict(info or {})

    def _clipped(self, text: str) -> str:
        """A text that a tokenizer takes, and no longer than verl lets an answer be: it does not clip what is raised."""
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        sign = "...(truncated)..."
        if len(text) <= self.max_tool_response_length + len(sign):
            return text
        half = self.max_tool_response_length // 2
        return text[:half] + sign + text[len(text) - half :]

    def _note(self, agent_data: AgentData, messages: list[dict[str, Any]]) -> None:
        """Called once, at the end: before, an extra field would change which of the engine's own verl takes."""
        own = []
        for number, message in enumerate(messages[self.prompt_messages :], start=self.prompt_messages):
            content = message["content"]
            if message["role"] == "assistant":
                # Parsers decode with the control tokens.
                for token in self.tokenizer.all_special_tokens:
                    content = content.replace(token, "")
            own.append({**message, "content": content, "failed": self.failed.get(number, False)})
        agent_data.extra_fields[TURNS] = turns_to_json(turns_of(own))
        agent_data.extra_fields[TOOL_COUNTS] = dict(self.counts)


def _says_failed(name: str, text: str | None, info: Mapping[str, Any]) -> bool:
    """Whether a call failed, by what verl writes in place of an answer, or by what the tool says of it."""
    sentences = (
        f"Unknown function '{name}'",
        f"Invalid JSON in arguments for '{name}'",
        f"Error executing tool '{name}'",
    )
    return bool(info.get(FAILED)) or (text or "").startswith(sentences)
