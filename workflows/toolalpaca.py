"""ToolAlpaca (arXiv 2306.05301) as a task of several turns: data for verl, the tool, and the verdict.

    python -m workflows.toolalpaca train.json test.json --out runs/toolalpaca

reads the rows that SDPO's repository publishes (`datasets/tooluse`). There the model writes `Action:` and `Action
Input:` into one answer. Here it calls the one tool `call_api`, which answers by the documentation in the row: with the
form of the response that is described there, or with what is wrong with the call. `tools.yaml`, verl's tool config, is
written beside the data.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf
from verl.tools.base_tool import BaseTool
from verl.tools.schemas import ToolResponse

from reward_fns.graders.tooluse import Call, difference, gold_calls
from srpo_verl.core import turns_from_json

TOOL = "call_api"
DATA_SOURCE = "toolalpaca"
SCHEMA: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": TOOL,
        "description": "Calls a function of the API that the user describes.",
        "parameters": {
            "type": "object",
            "properties": {
                "function": {"type": "string", "description": "Its name."},
                "arguments": {"type": "object", "description": "Its parameters by name."},
            },
            "required": ["function", "arguments"],
        },
    },
}
_HEAD = r"^(?P<name>\w+): [^\n]*\nParameters: (?P<parameters>\{.*?\})\nOutput: "
_FUNCTION = re.compile(_HEAD + r"(?P<output>.*?)(?=^\w+: [^\n]*\nParameters: |\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Function:
    """A function of an API: its parameters with what is said of each, and the form of its response."""

    parameters: dict[str, str]
    output: str


def functions_of(documentation: str) -> dict[str, Function]:
    """The functions that a row describes. Raises ValueError if there are none."""
    found = {
        match["name"]: Function(json.loads(match["parameters"]), match["output"].strip())
        for match in _FUNCTION.finditer(documentation)
    }
    if not found:
        raise ValueError(f"no function is described in {documentation[:200]!r}")
    return found


class CallApi(BaseTool):
    """`call_api(function, arguments)`, by the documentation that the rollout's row gives it."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.apis: dict[str, dict[str, Function]] = {}

    async def create(self, instance_id: str | None = None, **kwargs: Any) -> tuple[str, ToolResponse]:
        instance_id, response = await super().create(instance_id)
        self.apis[instance_id] = functions_of(kwargs["create_kwargs"]["documentation"])
        return instance_id, response

    async def execute(
        self, instance_id: str, parameters: dict[str, Any], **kwargs: Any
    ) -> tuple[ToolResponse, float, dict]:
        api, name = self.apis[instance_id], parameters.get("function")
        if name not in api:
            raise ValueError(f"there is no function {name!r}; there are {', '.join(api)}")
        arguments = parameters.get("arguments", {})
        if not isinstance(arguments, dict):
            raise TypeError("arguments must be an object")
        if unknown := sorted(set(arguments) - set(api[name].parameters)):
            raise ValueError(f"{name} has no parameter {', '.join(unknown)}; it has {', '.join(api[name].parameters)}")
        return ToolResponse(text=api[name].output), 0.0, {}

    async def release(self, instance_id: str, **kwargs: Any) -> None:
        self.apis.pop(instance_id, None)


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **kwargs: Any
) -> dict[str, Any]:
    """The grader `tooluse` on the calls of all turns: those of the gold answer, in its order."""
    turns = turns_from_json((extra_info or {})["srpo_turns"])
    made = [call.arguments for turn in turns for call in turn.calls if call.name == TOOL]
    calls = [Call(str(one.get("function")), one.get("arguments", {})) for one in made if not isinstance(one, str)]
    problem = difference(calls, gold_calls(ground_truth)) if calls else "No function was called."
    failed = any(turn.failed for turn in turns)
    return {"score": float(not problem), "acc": float(not problem), "format_ok": float(not failed), "feedback": problem}


def verl_row(row: dict[str, Any], index: int, split: str) -> dict[str, Any]:
    """A row of SDPO's layout in verl's; a ValueError says what it lacks."""
    head, _, rest = row["prompt"].partition("\n\nUse the following format:")
    documentation, question = head.partition("Documentation:\n")[2], rest.partition("\nQuestion: ")[2].strip()
    if not question:
        raise ValueError(f"row {index} has no question")
    functions_of(documentation)
    gold_calls(row["answer"])
    content = f"{head}\n\nCall its functions with {TOOL}, with values from the question only.\nQuestion: {question}"
    tools_kwargs = {TOOL: {"create_kwargs": {"documentation": documentation}}}
    return {
        "data_source": DATA_SOURCE,
        "prompt": [{"role": "user", "content": content}],
        "ability": "tool_use",
        "reward_model": {"style": "rule", "ground_truth": row["answer"]},
        "extra_info": {"index": index, "split": split, "need_tools_kwargs": True, "tools_kwargs": tools_kwargs},
    }


def convert(lines: Iterable[str], split: str) -> list[dict[str, Any]]:
    """Rows of verl, without those that say nothing a tool could answer by; their number is printed."""
    rows, problems = [], []
    for index, line in enumerate(lines):
        try:
            rows.append(verl_row(json.loads(line), index, split))
        except ValueError as error:
            problems.append(str(error))
    print(f"{split}: {len(rows)} rows; {len(problems)} left out" + (f", e.g. {problems[0]}" if problems else ""))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        rows = convert(getattr(args, split).read_text().splitlines(), split)
        pd.DataFrame(rows).to_parquet(args.out / f"{split}.parquet")
    tool = {
        "class_name": f"workflows.toolalpaca.{CallApi.__name__}",
        "config": {"type": "native"},
        "tool_schema": SCHEMA,
    }
    OmegaConf.save({"tools": [tool]}, args.out / "tools.yaml")


if __name__ == "__main__":
    main()
