"""The agent's tool, in verl's form (`verl.tools.base_tool.BaseTool`)."""

from __future__ import annotations

import re
from typing import Any

from verl.tools.base_tool import BaseTool
from verl.tools.schemas import ToolResponse

from workflows.tiny_agent.task import ARGUMENT, calculate

# What the model reads in place of a result.
MISSING = f"the argument {ARGUMENT} is missing"
UNREADABLE = "no expression of the form a + b"


class Calculator(BaseTool):
    """`a + b`, `a - b` or `a * b` of digits, modulo the `modulus` of its config."""

    async def execute(self, instance_id: str, parameters: dict[str, Any], **kwargs) -> tuple[ToolResponse, float, dict]:
        if ARGUMENT not in parameters:
            raise ValueError(MISSING)
        match = re.fullmatch(r"(\d) ([-+*]) (\d)", str(parameters[ARGUMENT]))
        if not match:
            raise ValueError(UNREADABLE)
        result = calculate(int(match[1]), match[2], int(match[3]), self.config["modulus"])
        return ToolResponse(text=str(result)), 0.0, {}
