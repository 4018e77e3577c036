"""Teacher prompts that are golden: messages and token ids, of two kinds of tokenizers that are trained on the spot."""

from __future__ import annotations

from typing import Any

from srpo_verl.config import SRPOConfig, TeacherConfig
from srpo_verl.core import PromptParts, teacher_messages, teacher_prompt_ids
from srpo_verl.training.routing_plan import Rollout, build_plan
from srpo_verl.training.teacher_prompts import TeacherPromptBuilder
from tests.core import tokenizers_for_tests

QUESTION = {"role": "user", "content": "What is 2 + 3? {x}"}
SYSTEM = {"role": "system", "content": "Be brief."}
HISTORY = [SYSTEM, {"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}, QUESTION]
ANSWER, FEEDBACK = "The answer is 5 {j}.", "Wrong sign.\n"

# Name -> messages, the sibling's response, the failed rollout's feedback, limit of tokens, other settings.
PROMPTS: dict[str, tuple[list[dict[str, str]], str | None, str | None, int, dict[str, Any]]] = {
    "sibling": ([QUESTION], ANSWER, None, 400, {}),
    "feedback": ([QUESTION], None, FEEDBACK, 400, {}),
    "feedback beside a sibling": ([QUESTION], ANSWER, FEEDBACK, 400, {}),
    "system and history": (HISTORY, ANSWER, None, 400, {}),
    "thinking removed": ([QUESTION], f"<think>\nhm\n</think>\n\n{ANSWER}", None, 400, {}),
    "thinking kept": ([QUESTION], f"<think>\nhm\n</think>\n\n{ANSWER}", None, 400, {"remove_thinking": False}),
    "control tokens": ([QUESTION], "5 <|im_end|> <end_of_turn> é", None, 400, {}),
    "shortened": ([SYSTEM, QUESTION], f"{ANSWER} " * 20, None, 150, {}),
    "feedback shortened": ([QUESTION], None, FEEDBACK * 30, 120, {}),
    "too long": ([QUESTION], ANSWER, None, 20, {}),
}


def compute() -> dict[str, Any]:
    tokenizers = {name: tokenizers_for_tests.ALL[name]() for name in ("chatml", "plain_markers")}
    return {
        kind: {name: _built(tokenizer, *PROMPTS[name]) for name in PROMPTS} | {"both": _both(tokenizer)}
        for kind, tokenizer in tokenizers.items()
    }


def _built(
    tokenizer: Any, messages: list[dict[str, str]], answer: str | None, feedback: str | None, limit: int, options: Any
) -> dict[str, str]:
    """The prompt of a failed rollout through the builder; a sibling without an answer has failed too."""
    srpo = SRPOConfig(teacher=TeacherConfig(use_feedback=True, **options))
    rows = [Rollout("x_0_0", 0.0, 5, reward_info={"feedback": feedback}), Rollout("x_1_0", float(bool(answer)), 5)]
    responses = {1: tokenizer.encode(answer, add_special_tokens=False)} if answer else {}
    builder = TeacherPromptBuilder(
        tokenizer=tokenizer, srpo=srpo, max_length=limit, chat_template_kwargs={"enable_thinking": False}
    )
    plan, prompts, left_out = builder.build(build_plan(rows, srpo), {0: messages}, responses)
    if 0 not in prompts:
        return {"left out": str(left_out), "routed": str(plan.routed.tolist())}
    return _shown(tokenizer, prompts[0])


def _both(tokenizer: Any) -> dict[str, str]:
    """Demonstration and feedback in one prompt, which only the function below the builder makes."""
    parts = PromptParts.of([SYSTEM, QUESTION], demonstration=ANSWER, feedback=FEEDBACK)
    (prompt,) = teacher_prompt_ids(tokenizer, [parts], max_length=400)
    messages = teacher_messages([SYSTEM, QUESTION], demonstration=ANSWER, feedback=FEEDBACK)
    return {"messages": str(messages), **_shown(tokenizer, prompt)}


def _shown(tokenizer: Any, prompt: Any) -> dict[str, str]:
    return {
        "text": tokenizer.decode(prompt.input_ids, skip_special_tokens=False),
        "ids": " ".join(map(str, prompt.input_ids)),
        "cut": f"truncated={prompt.truncated} dropped={prompt.dropped_tokens} kept={prompt.kept_tokens}",
    }
