"""Single-turn environments of Prime Intellect's `verifiers`: `srpo prepare verifiers:ENVIRONMENT`, an ID or a module.

The environment's `dataset` is for training, its `eval_dataset` for testing; where it has no `eval_dataset`, the last
`test_rows` of the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from reward_fns.graders.verifiers import PREFIX, unusable
from reward_fns.result import BadSettings
from workflows.prepare.adapters.benchmark import Benchmark, PrepareError, Question, Row

NAME = "verifiers:"
_ROLES = ("system", "user", "assistant")


def find(name: str) -> Benchmark:
    """The benchmark `verifiers:<environment>`. Raises PrepareError where the package is missing or too new."""
    if reason := unusable():
        raise PrepareError(f"{name}: {reason}")
    environment = name.removeprefix(NAME)

    def generate(settings: Mapping[str, Any]) -> dict[str, list[Row]]:
        return rows(environment, settings)

    return Benchmark(
        name=name,
        data_source=PREFIX + environment,
        ability="reasoning",
        adapt=adapt,
        columns=("env_args", "input"),
        generate=generate,
        elsewhere=f"verifiers {metadata.version('verifiers')}",
    )


def rows(name: str, settings: Mapping[str, Any]) -> dict[str, list[Row]]:
    """`train` and `test` of an environment; settings beyond `test_rows` go to its `load_environment`."""
    from reward_fns.graders.verifiers_scores import load

    arguments = {key: value for key, value in settings.items() if key != "test_rows"}
    try:
        environment = load(name, arguments)
    except BadSettings as error:
        raise PrepareError(str(error)) from error
    splits: dict[str, list[Row]] = {
        split: [{"env_args": arguments, "input": dict(row)} for row in built]
        for split, built in (("train", environment.build_dataset()), ("test", environment.build_eval_dataset()))
        if built is not None
    }
    if "test" in splits:
        if "test_rows" in settings:
            raise PrepareError(f"--dataset-kwargs: {name} has rows for testing of its own, so test_rows says nothing")
        return splits
    held_out = settings.get("test_rows", min(200, len(splits["train"]) // 10))
    if not isinstance(held_out, int) or not 0 <= held_out < len(splits["train"]):
        raise PrepareError(
            f"--dataset-kwargs: test_rows={held_out!r} must be a whole number below the {len(splits['train'])} rows "
            f"that {name} has"
        )
    kept = len(splits["train"]) - held_out
    return {"train": splits["train"][:kept], **({"test": splits["train"][kept:]} if held_out else {})}


def adapt(row: Row, split: str) -> Question:
    """The environment's own messages. ValueError or TypeError if they are no texts, or the row is no JSON."""
    truth = json.dumps(row, ensure_ascii=False)
    if json.loads(truth) != row:
        raise ValueError("the row does not survive as JSON, and its rubric needs it whole")
    prompt = row["input"]["prompt"]
    if not isinstance(prompt, list):
        raise TypeError("the prompt is a text, and a chat is wanted")
    messages = [{"role": message["role"], "content": message["content"]} for message in prompt]
    for message in messages:
        if message["role"] not in _ROLES or not isinstance(message["content"], str):
            raise ValueError(f"a message of {message['role']!r} whose content is a {type(message['content']).__name__}")
    if messages[-1]["role"] != "user":
        raise ValueError(f"the last message is the {messages[-1]['role']}'s, and must be the user's")
    system = messages.pop(0)["content"] if messages[0]["role"] == "system" else None
    return Question(messages[-1]["content"], truth, system=system, few_shot=tuple(messages[:-1]))
