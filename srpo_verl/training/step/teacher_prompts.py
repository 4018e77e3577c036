"""Teacher prompts of the routed rollouts of one batch, and their dump for people to read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from srpo_verl.config import SRPOConfig
from srpo_verl.core import (
    BadMessages,
    Nothing,
    PromptParts,
    TeacherPrompt,
    Turn,
    TurnPrompt,
    teacher_prompt_ids,
    turns_from_json,
    turns_to_json,
    visible_answer,
)
from srpo_verl.training.step.routing_plan import RoutingPlan

# Room for the template around question and demonstration; 2048 + 8192 + 512 + 8192 = 18944, the paper's setting.
TEMPLATE_TOKENS = 512
# What two rollouts share if they are shown the same prompt.
Key = tuple[Any, ...]


def max_teacher_prompt_length(config: Mapping[str, Any], srpo: SRPOConfig) -> int:
    """Tokens a teacher prompt may have: the user's limit, else what leaves room for the response in max_model_len."""
    if srpo.teacher.max_prompt_length is not None:
        return srpo.teacher.max_prompt_length
    data, rollout = config["data"], config["actor_rollout_ref"]["rollout"]
    wanted = data["max_prompt_length"] + data["max_response_length"] + TEMPLATE_TOKENS
    if rollout["max_model_len"] is None:
        return wanted
    return min(wanted, rollout["max_model_len"] - data["max_response_length"])


@dataclass(frozen=True)
class LeftOut:
    """Routed rows that go back to the GRPO branch because no teacher prompt can be made, by reason.

    `contrast` counts the prompts of further passes that cannot be made; None for a run without a contrast. Such a row
    keeps its other passes, and its advantage if it has none.
    """

    too_long: tuple[int, ...] = ()
    bad_messages: tuple[int, ...] = ()
    nothing_to_show: tuple[int, ...] = ()
    contrast: int | None = None


@dataclass
class TeacherPromptBuilder:
    """Tokenises the prompts of a plan's rows that the teacher is asked about."""

    tokenizer: Any
    srpo: SRPOConfig
    max_length: int
    chat_template_kwargs: Mapping[str, Any]

    def build(
        self,
        plan: RoutingPlan,
        messages: Mapping[int, Sequence[Mapping[str, Any]]],
        responses: Mapping[int, Sequence[int] | torch.Tensor],
        tools: Mapping[int, Sequence[Mapping[str, Any]]] | None = None,
        turns: Mapping[int, str] | None = None,
    ) -> tuple[RoutingPlan, dict[int, TeacherPrompt], LeftOut]:
        """Prompts by row, and the plan without the rows whose question alone is too long or whose messages are bad.

        Failed rollouts of a group are shown the same sibling, hence the same prompt: it is made once.

        Args:
            messages: the chat messages of each row that is asked about.
            responses: token ids (j,) of each row that serves as a demonstration.
            tools: schemas of the tools that the prompt of such a row lists; the teacher's lists the same.
            turns: of each row that serves as a demonstration, its session's turns as JSON. One of several turns is
                shown with all of them, any other as its response.
        """
        tools = tools or {}
        answers = {row: self._answer(ids) for row, ids in responses.items()}
        of_several = {row: found for row, text in (turns or {}).items() if (found := _several(text))}
        sections, teacher = self.srpo.sections(), self.srpo.teacher
        conversations: dict[Key, Sequence[Mapping[str, Any]]] = {}
        parts: dict[Key, PromptParts | TurnPrompt] = {}
        tools_of: dict[Key, Any] = {}
        key_of: dict[int, Key] = {}
        bad_messages, nothing_to_show = [], []
        for row in plan.asked_rows():
            sibling = int(plan.routing.demonstration[row])
            steps = of_several.get(sibling, ())
            text = turns_to_json(steps) if steps else answers[sibling] if sibling >= 0 else plan.shown(row)
            alone = isinstance(text, Nothing)
            if text is None or not (text.strip() or alone):
                nothing_to_show.append(row)
                continue
            section = "{text}" if alone else sections[plan.routing.providers[int(plan.routing.provider[row])]]
            key: Key = (plan.rollouts[row].session[0], section, text, json.dumps(tools.get(row)))
            if not _same(conversations.setdefault(key, messages[row]), messages[row]):
                key = (row,)
            key_of[row] = key
            if key in parts:
                continue
            tools_of[key] = tools.get(row)
            try:
                whole = PromptParts.of(
                    messages[row],
                    [(section, text)],
                    template="{prompt}{information}" if alone else teacher.template,
                    system_prompt=teacher.system_prompt,
                )
                parts[key] = self._with_turns(whole, steps) if steps else whole
            except BadMessages:
                bad_messages.append(row)
        made = self._prompts(parts, tools_of)
        prompts = {row: prompt for row, key in key_of.items() if (prompt := made.get(key)) is not None}
        too_long = [row for row, key in key_of.items() if key in made and made[key] is None]
        left_out = LeftOut(tuple(too_long), tuple(bad_messages), tuple(nothing_to_show))
        return plan.without([*too_long, *bad_messages, *nothing_to_show]), prompts, left_out

    def contrast(self, plan: RoutingPlan, *given: Any) -> tuple[list[dict[int, TeacherPrompt]], int | None]:
        """Prompts by row of each further pass, which shows a sibling of the contrast, and `LeftOut.contrast`.

        `given` as to `build`.
        """
        name = self.srpo.contrast
        if name is None:
            return [], None
        plans = [plan.showing(column, name) for column in range(plan.routing.contrast.shape[1])]
        passes = [self.build(shown, *given)[1] for shown in plans]
        wanted = sum(len(shown.asked_rows()) for shown in plans)
        return passes, wanted - sum(len(prompts) for prompts in passes)

    def _prompts(
        self, parts: Mapping[Key, PromptParts | TurnPrompt], tools_of: Mapping[Key, Any]
    ) -> dict[Key, TeacherPrompt | None]:
        """All prompts that list the same tools in one call of the tokenizer."""
        alike: dict[str, list[Key]] = {}
        for key in parts:
            alike.setdefault(json.dumps(tools_of[key]), []).append(key)
        made: dict[Key, TeacherPrompt | None] = {}
        for keys in alike.values():
            listed = tools_of[keys[0]]
            found = teacher_prompt_ids(
                self.tokenizer,
                [parts[key] for key in keys],
                max_length=self.max_length,
                chat_template_kwargs={**self.chat_template_kwargs, **({"tools": listed} if listed else {})},
            )
            made |= dict(zip(keys, found, strict=True))
        return made

    def _with_turns(self, parts: PromptParts, turns: Sequence[Turn]) -> TurnPrompt:
        teacher = self.srpo.teacher
        return TurnPrompt.of(parts, turns, demonstration=teacher.demonstration, remove_thinking=teacher.remove_thinking)

    def _answer(self, ids: Sequence[int] | torch.Tensor) -> str:
        """A sibling's response as it is shown."""
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return visible_answer(text) if self.srpo.teacher.remove_thinking else text


def _several(text: str) -> tuple[Turn, ...]:
    """The turns of a rollout, () of one that is a single answer or has nothing that the model wrote."""
    turns = turns_from_json(text)
    own = [turn for turn in turns if turn.role == "assistant"]
    return turns if own and (len(turns) > 1 or own[0].calls) else ()


def _same(one: Any, other: Any) -> bool:
    """Whether two conversations are equal for certain; they come from data sets and may be anything."""
    return isinstance(one, list) and isinstance(other, list) and one == other


def dump_teacher_prompts(
    folder: str,
    step: int,
    plan: RoutingPlan,
    prompts: Mapping[int, TeacherPrompt],
    responses: Mapping[int, Sequence[int]],
    tokenizer: Any,
    *,
    append: bool = False,
) -> str:
    """One JSON line per routed rollout in `folder/<step>.jsonl`, or after those there (`append`); returns the path."""
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{step}.jsonl")
    with open(path, "a" if append else "w", encoding="utf-8") as file:
        for row, prompt in prompts.items():
            uid, session = plan.rollouts[row].session
            sibling = int(plan.routing.demonstration[row])
            line = {
                "step": step,
                "uid": uid,
                "rollout": session,
                "demonstration": plan.rollouts[sibling].session[1] if sibling >= 0 else None,
                "provider": plan.routing.providers[int(plan.routing.provider[row])],
                "score": plan.rollouts[row].score,
                "teacher_prompt": tokenizer.decode(prompt.input_ids, skip_special_tokens=False),
                "response": tokenizer.decode(list(responses[row]), skip_special_tokens=False),
                "truncated": prompt.truncated,
                "dropped_tokens": prompt.dropped_tokens,
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return path
