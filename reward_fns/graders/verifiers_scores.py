"""The part of the verifiers grader that runs in a worker process, and what its fork server imports beforehand.

A completion goes the way of every rollout of verifiers: ``Environment.run_rollout``, with a client that says it.
So the environment sets up its state, parses and scores as it does elsewhere.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from typing import Any

import verifiers as vf
from verifiers.types import Response, ResponseMessage

from reward_fns.result import BadSettings, GraderUnavailable


class _Reply(vf.OpenAIChatCompletionsClient):
    """Answers with one text, whatever the prompt."""

    def __init__(self, text: str):
        super().__init__(None)
        self._message = ResponseMessage(role="assistant", content=text, finish_reason="stop", is_truncated=False)

    async def get_response(self, *args: Any, **kwargs: Any) -> Response:
        return Response(id="rollout", created=0, model="policy", message=self._message)


class _InPlace(Executor):
    """For MathRubric, whose process pool would outlive a worker that is killed: the worker is one already."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(function(*args, **kwargs))
        return done


def load(name: str, arguments: Mapping[str, Any]) -> vf.SingleTurnEnv:
    """The environment ``name``, by its module's ``load_environment``.

    Raises:
        BadSettings: it cannot be loaded, or has what a single answer of its own cannot be scored with.
    """
    try:
        environment = vf.load_environment(name, **arguments)
    except (ValueError, RuntimeError) as error:
        raise BadSettings(
            f"verifiers cannot load the environment {name!r}: {error} Its package must be installed wherever rewards "
            "are computed; env_args are what its load_environment takes"
        ) from error
    if reason := _unfit(environment):
        raise BadSettings(f"the environment {name!r} {reason}")
    for rubric in _rubrics(environment.rubric):
        if isinstance(rubric, vf.MathRubric):
            rubric.executor = _InPlace()
    return environment


def _unfit(environment: vf.Environment) -> str | None:
    """Why its rollouts cannot be scored one by one; None if they can."""
    if isinstance(environment, vf.EnvGroup):
        return "is a group of environments: prepare each by its own name, and give data.train_files their files"
    if not isinstance(environment, vf.SingleTurnEnv) or environment.max_turns != 1 or environment.tool_defs:
        return (
            f"({type(environment).__name__}) takes more than one turn, or has tools: verl's tool agent makes such "
            "rollouts (docs/agents.md), and a grader of your own scores them (docs/rewards.md)"
        )
    if environment.message_type != "chat":
        return f"has message_type={environment.message_type!r}, and prompts are chats here"
    rubrics = list(_rubrics(environment.rubric))
    if any(isinstance(rubric, vf.JudgeRubric) for rubric in rubrics):
        return (
            "asks a judge model, and a reward worker has no client for one: leave that function out of its rubric, or "
            "take verl's reward model (reward.reward_model)"
        )
    if environment.rubric.has_group_rewards or environment.rubric.has_advantages:
        return (
            "scores a group of rollouts together, and a reward worker has one: leave that function out of its rubric; "
            "the algorithm compares a group by itself"
        )
    if not all(rubric.funcs for rubric in rubrics) or _judge_of_right(environment) is None:
        return "has a rubric without a reward function of positive weight"
    return None


def _rubrics(rubric: vf.Rubric) -> Iterator[vf.Rubric]:
    """The rubrics that hold functions, in order."""
    if isinstance(rubric, vf.RubricGroup):
        for member in rubric.rubrics:
            yield from _rubrics(member)
    else:
        yield rubric


def _judge_of_right(environment: vf.Environment) -> str | None:
    """The name of the first function of positive weight."""
    weighted = (
        function.__name__
        for rubric in _rubrics(environment.rubric)
        for function, weight in zip(rubric.funcs, rubric.weights, strict=True)
        if weight > 0
    )
    return next(weighted, None)


@functools.cache
def _loaded(name: str, arguments: str) -> vf.SingleTurnEnv:
    return load(name, json.loads(arguments))


@functools.cache
def _runner() -> asyncio.Runner:
    """One event loop for the process: what an environment's functions keep may be bound to it."""
    return asyncio.Runner()


def score(name: str, solution: str, ground_truth: str) -> dict[str, Any]:
    """The rubric's verdict on ``solution``, for the row that ``ground_truth`` is the JSON of."""
    row = json.loads(ground_truth)
    environment = _loaded(name, json.dumps(row["env_args"], sort_keys=True))
    output = _runner().run(environment.run_rollout(row["input"], _Reply(solution), "policy", {}))
    if output["error"]:
        raise GraderUnavailable(f"{name}: its setup failed: {output['error']}")
    return {
        "score": output["reward"],
        "acc": output["metrics"][_judge_of_right(environment)],
        "pred": _read(environment.parser, solution) or "",
    }


def gold(name: str, ground_truth: str) -> str | None:
    """The first form of the row's ``answer`` that the rubric finds right; None if there is none, or no answer."""
    row = json.loads(ground_truth)
    answer = row["input"].get("answer")
    if answer in (None, ""):
        return None
    parser = _loaded(name, json.dumps(row["env_args"], sort_keys=True)).parser
    return next((form for form in _forms(parser, str(answer)) if score(name, form, ground_truth)["acc"] >= 1), None)


def _forms(parser: vf.Parser, answer: str) -> Iterator[str]:
    """Texts that give ``answer``: as the parser formats it, bare, boxed, as GSM8K has it; and behind a thought."""
    if isinstance(parser, vf.XMLParser):
        others = dict.fromkeys(parser.get_fields(), "...")
        yield parser.format(**{**others, parser.answer_field: answer})
    for thought in ("", "<think>\n...\n</think>\n\n"):
        yield thought + answer
        yield f"{thought}\\boxed{{{answer}}}"
        yield f"{thought}#### {answer}"


def _read(parser: vf.Parser, solution: str) -> str | None:
    """The answer that the parser reads; None if it reads none."""
    try:
        return parser.parse_answer([{"role": "assistant", "content": solution}])
    except Exception:  # noqa: BLE001 - a parser of the environment's, which may fail on any text: for the log alone
        return None
