"""The task: `Compute (3 - 4) * (2 + 1) mod 10.`, worked out by calls of a calculator; a model this small knows no sums.

assistant  <tool_call>{"name": "calculator", "arguments": {"expression": "3 - 4"}}</tool_call>
tool       9
assistant  <tool_call>{"name": "calculator", "arguments": {"expression": "2 + 1"}}</tool_call>
tool       3
assistant  <tool_call>{"name": "calculator", "arguments": {"expression": "9 * 3"}}</tool_call>
tool       7
assistant  #### 7
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from srpo_verl.core import Call, Turn
from workflows.tiny.model import END, START
from workflows.tiny.task import ANSWER_MARK, Question

DATA_SOURCE = "tiny_agent"
TOOL, ARGUMENT, WRONG_ARGUMENT = "calculator", "expression", "formula"
SCHEMA: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": TOOL,
        "description": "Computes.",
        "parameters": {"type": "object", "properties": {ARGUMENT: {"type": "string"}}, "required": [ARGUMENT]},
    },
}
TEMPLATE = (
    "{% if tools %}{{ '<|im_start|>system\n' }}{% for t in tools %}{{ t | tojson }}{% endfor %}{{ '<|im_end|>\n' }}"
    "{% endif %}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}"
    "{% for c in m['tool_calls'] or [] %}"
    "{{ '<tool_call>{\"name\": \"' + c['function']['name'] + '\", \"arguments\": ' }}"
    "{% if c['function']['arguments'] is string %}{{ c['function']['arguments'] }}"
    "{% else %}{{ c['function']['arguments'] | tojson }}{% endif %}{{ '}</tool_call>' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def calculate(a: int, op: str, b: int, modulus: int) -> int:
    """The last digit, for modulus 10."""
    return {"+": a + b, "-": a - b, "*": a * b}[op] % modulus


@dataclass(frozen=True)
class Faults:
    """What the start policy does wrong, by design: probabilities."""

    # It answers at once, with any digit.
    no_call: float = 0.20
    # It overlooks a minus: a habit.
    overlooked_minus: float = 0.50
    # A call has another argument than the schema says; the calculator refuses it.
    wrong_argument: float = 0.06
    # It goes on with another digit than the calculator's.
    misread: float = 0.05


NONE = Faults(0.0, 0.0, 0.0, 0.0)


def work_out(q: Question, modulus: int, rng: random.Random, faults: Faults = NONE) -> list[Turn]:
    """A rollout; a right one without faults."""
    if rng.random() < faults.no_call:
        return [Turn("assistant", f"{ANSWER_MARK}{rng.randrange(modulus)}")]
    turns: list[Turn] = []

    def ask(a: int, op: str, b: int) -> int:
        if op == "-" and rng.random() < faults.overlooked_minus:
            op = "+"
        turn, answer = call_turn(a, op, b, wrong=rng.random() < faults.wrong_argument, modulus=modulus)
        turns.extend((turn, answer))
        misread = answer.failed or rng.random() < faults.misread
        return rng.randrange(modulus) if misread else int(answer.content)

    left, right = ask(q.a, q.left, q.b), ask(q.c, q.right, q.d)
    result = ask(left, q.join, right)
    return [*turns, Turn("assistant", f"{ANSWER_MARK}{result}")]


def call_turn(a: int, op: str, b: int, *, modulus: int, wrong: bool = False) -> tuple[Turn, Turn]:
    """A call, and what the calculator answers through verl's agent loop."""
    call = Turn("assistant", "", (Call(TOOL, {WRONG_ARGUMENT if wrong else ARGUMENT: f"{a} {op} {b}"}),))
    if wrong:
        return call, Turn("tool", f"Error executing tool '{TOOL}': the argument {ARGUMENT} is missing", failed=True)
    return call, Turn("tool", str(calculate(a, op, b, modulus)))


def value(q: Question, modulus: int) -> int:
    """The true answer."""
    left, right = calculate(q.a, q.left, q.b, modulus), calculate(q.c, q.right, q.d, modulus)
    return calculate(left, q.join, right, modulus)


def question_messages(q: Question, modulus: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": f"Compute {q} mod {modulus}."}]


def chat_text(messages: Sequence[dict[str, Any]], *, tools: bool = True) -> str:
    """What `TEMPLATE` renders with the generation prompt, without the cost of a template engine."""
    text = f"{START}system\n{json.dumps(SCHEMA)}{END}\n" if tools else ""
    for message in messages:
        calls = [call["function"] for call in message.get("tool_calls") or ()]
        called = "".join(call_text(Call(call["name"], call["arguments"])) for call in calls)
        text += f"{START}{message['role']}\n{message['content']}{called}{END}\n"
    return f"{text}{START}assistant\n"


def call_text(call: Call) -> str:
    """A call as the model writes it."""
    return f'<tool_call>{{"name": "{call.name}", "arguments": {call.arguments_text}}}</tool_call>'


def verl_row(q: Question, index: int, split: str, modulus: int) -> dict[str, Any]:
    """One row of verl's parquet format."""
    return {
        "data_source": DATA_SOURCE,
        "prompt": question_messages(q, modulus),
        "ability": "tool_use",
        "reward_model": {"style": "rule", "ground_truth": str(value(q, modulus))},
        "extra_info": {"index": index, "split": split},
    }
