"""Schemas of the tools that a rollout's prompt lists: the teacher's prompt must list the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def has_tools(multi_turn: Mapping[str, Any]) -> bool:
    """Whether a run has tools, by `actor_rollout_ref.rollout.multi_turn`."""
    return bool(multi_turn.get("tool_config_path") or multi_turn.get("function_tool_path"))


def listed_schemas(tools: Sequence[Any], row: Mapping[str, Any], *, by_tool_agent: bool) -> list[dict[str, Any]]:
    """What verl's `ToolAgentLoop` gives the chat template for a row; [] for an agent loop that lists no tools.

    Args:
        tools: verl's tools, with name and schema.
        row: of the data; `extra_info.tool_selection` names some of the tools.
    """
    if not by_tool_agent:
        return []
    chosen = (row.get("extra_info") or {}).get("tool_selection")
    by_name = {tool.name: tool for tool in tools}
    used = [by_name[name] for name in chosen if name in by_name] if chosen else list(tools)
    return [tool.tool_schema.model_dump(exclude_unset=True, exclude_none=True) for tool in used]
