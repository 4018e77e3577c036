"""Teacher prompts of the routed rollouts of one batch, and their dump for people to read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from srpo_verl.config import SRPOConfig
from srpo_verl.core import BadMessages, PromptParts, TeacherPrompt, teacher_prompt_ids, visible_answer
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
    """Routed rows that go back to the GRPO branch because no teacher prompt can be made, by reason."""

    too_long: tuple[int, ...] = ()
    bad_messages: tuple[int, ...] = ()
    nothing_to_show: tuple[int, ...] = ()


@dataclass
class TeacherPromptBuilder:
    """Tokenises the prompts of a plan's routed rows."""

    tokenizer: Any
    srpo: SRPOConfig
    max_length: int
    chat_template_kwargs: Mapping[str, Any]

    def build(
        self,
        plan: RoutingPlan,
        messages: Mapping[int, Sequence[Mapping[str, Any]]],
        responses: Mapping[int, Sequence[int] | torch.Tensor],
    ) -> tuple[RoutingPlan, dict[int, TeacherPrompt], LeftOut]:
        """Prompts by row, and the plan without the rows whose question alone is too long or whose messages are bad.

        Failed rollouts of a group are shown the same sibling, hence the same prompt: it is made once.

        Args:
            messages: the chat messages of each routed row.
            responses: token ids (j,) of each row that serves as a demonstration.
        """
        answers = {row: self._answer(ids) for row, ids in responses.items()}
        sections, teacher = self.srpo.sections(), self.srpo.teacher
        conversations: dict[Key, Sequence[Mapping[str, Any]]] = {}
        parts: dict[Key, PromptParts] = {}
        key_of: dict[int, Key] = {}
        bad_messages, nothing_to_show = [], []
        for row in plan.routed_rows():
            sibling = int(plan.routing.demonstration[row])
            text = answers[sibling] if sibling >= 0 else plan.shown(row)
            if text is None or not text.strip():
                nothing_to_show.append(row)
                continue
            section = sections[plan.routing.providers[int(plan.routing.provider[row])]]
            key: Key = (plan.rollouts[row].session[0], section, text)
            if not _same(conversations.setdefault(key, messages[row]), messages[row]):
                key = (row,)
            key_of[row] = key
            if key in parts:
                continue
            try:
                parts[key] = PromptParts.of(
                    messages[row],
                    [(section, text)],
                    template=teacher.template,
                    system_prompt=teacher.system_prompt,
                )
            except BadMessages:
                bad_messages.append(row)
        found = teacher_prompt_ids(
            self.tokenizer,
            list(parts.values()),
            max_length=self.max_length,
            chat_template_kwargs=self.chat_template_kwargs,
        )
        made = dict(zip(parts, found, strict=True))
        prompts = {row: prompt for row, key in key_of.items() if (prompt := made.get(key)) is not None}
        too_long = [row for row, key in key_of.items() if key in made and made[key] is None]
        left_out = LeftOut(tuple(too_long), tuple(bad_messages), tuple(nothing_to_show))
        return plan.without([*too_long, *bad_messages, *nothing_to_show]), prompts, left_out

    def _answer(self, ids: Sequence[int] | torch.Tensor) -> str:
        """A sibling's response as it is shown."""
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return visible_answer(text) if self.srpo.teacher.remove_thinking else text


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
) -> str:
    """One JSON line per routed rollout in `folder/<step>.jsonl`; returns the path."""
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{step}.jsonl")
    with open(path, "w", encoding="utf-8") as file:
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
