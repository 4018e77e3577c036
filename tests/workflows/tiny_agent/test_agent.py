"""The agent's start: its texts are what verl's loop and the teacher's prompt make, its data true."""

import asyncio
import random
import re

import pandas as pd
import pytest
from transformers import AutoTokenizer
from verl.tools.tool_registry import load_all_tools

from srpo_verl.core import SECTIONS, PromptParts, Turn, TurnPrompt, check_conversation_template, turns_to_json
from workflows.tiny import start as tiny
from workflows.tiny.warmup import WarmUp, encode
from workflows.tiny_agent.calculator import MISSING
from workflows.tiny_agent.reward import compute_score
from workflows.tiny_agent.start import AgentStart
from workflows.tiny_agent.task import (
    SCHEMA,
    Faults,
    calculate,
    call_turn,
    chat_text,
    question_messages,
    value,
    work_out,
)
from workflows.tiny_agent.texts import plain_example, teacher_example

SHORT = AgentStart(train=20, test=8, warm_up=WarmUp(steps=2, clean_steps=1, batch=6, teacher_batch=2))
P = SHORT.p


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("agent")
    assert tiny.build(out, SHORT, progress=False)
    return out


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder / "model")


def questions(count, seed=0):
    rng = random.Random(seed)
    return [SHORT.task().sample(rng) for _ in range(count)]


def test_right_rollouts_are_true():
    for q in questions(200):
        turns = work_out(q, P, random.Random(0))
        assert turns[-1].content == f"#### {eval(str(q)) % P}" == f"#### {value(q, P)}"
        assert [turn.role for turn in turns] == ["assistant", "tool"] * 3 + ["assistant"]
        assert graded(q, turns)["score"] == 1.0


def test_the_texts_are_those_of_the_chat_template(tokenizer):
    """Of a question, and of the teacher's prompt; with the schema as verl's tools give it."""
    check_conversation_template(tokenizer, {})
    q = questions(1)[0]
    parts = PromptParts.of(question_messages(q, P), [(SECTIONS["sibling"], "")])
    shown = TurnPrompt.of(parts, work_out(q, P, random.Random(0)), demonstration="conversation").whole()
    for messages in (question_messages(q, P), shown):
        rendered = tokenizer.apply_chat_template(messages, tools=[SCHEMA], add_generation_prompt=True, tokenize=False)
        assert chat_text(messages) == rendered


def test_a_rollout_has_the_tokens_it_was_warmed_up_on(tokenizer):
    """Token by token: what the model writes, and what verl's Qwen builder puts between the turns."""
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

    builder = create_continuous_token_builder(tokenizer, hf_model_type="qwen3")
    q = questions(1)[0]
    turns = work_out(q, P, random.Random(0))
    messages = question_messages(q, P)
    ids = builder.build_initial_tokens(messages, tools=[SCHEMA])
    for turn in turns:
        before = list(messages)
        if turn.role == "assistant":
            _, (piece,) = plain_example(q, P, [turn])
            ids = ids + tokenizer.encode(piece.text, add_special_tokens=False)
            calls = [{"function": {"name": call.name, "arguments": call.arguments}} for call in turn.calls]
            messages = [*messages, {"role": "assistant", "content": turn.content, "tool_calls": calls}]
        else:
            messages = [*messages, {"role": "tool", "content": turn.content}]
            ids = builder.merge_context_tokens(before, messages, ids, tools=[SCHEMA]).token_ids
    expected, labels = encode([plain_example(q, P, turns)], tokenizer)
    assert ids == expected[0].tolist()
    # Loss on what the model writes, and on nothing that the tool says.
    trained = [token for token, label in zip(expected[0].tolist(), labels[0].tolist(), strict=True) if label != -100]
    assert tokenizer.decode(trained).count("</tool_call>") == 3
    assert "tool\n" not in tokenizer.decode(trained)


def test_the_tool_config_gives_verls_loop_the_calculator(folder):
    (tool,) = load_all_tools(str(folder / "tools.yaml"), None)
    assert tool.tool_schema.model_dump(exclude_unset=True, exclude_none=True) == SCHEMA

    def ask(parameters):
        return asyncio.run(tool.execute("x", parameters))[0].text

    assert [ask({"expression": text}) for text in ("3 - 4", "7 * 8", "9 + 1")] == ["9", "6", "0"]
    with pytest.raises(ValueError, match=MISSING):
        ask({"formula": "3 - 4"})
    for text in ("3-4", "11 + 1", "3 / 4", "__import__('os')"):
        with pytest.raises(ValueError, match="no expression"):
            ask({"expression": text})
    # What the warm-up has for a refused call is what verl's loop says of it.
    assert call_turn(1, "+", 2, modulus=P, wrong=True)[1].content.endswith(MISSING)


def test_teachers_examples_answer_the_question_behind_every_fault():
    for q in questions(200, seed=1):
        prompt, pieces = teacher_example(q, P, random.Random(str(q)))
        text = "".join(piece.text for piece in pieces)
        calls = re.findall(r'"(?:expression|formula)": "(\d) (.) (\d)"', text)
        assert len(calls) == 3
        assert "(the conversation above)" in prompt
        refused = text.count(MISSING)
        assert refused == text.count("formula")
        if all(piece.trained for piece in pieces if "tool_call" in piece.text or piece.text.strip() in "+-*"):
            assert calls[0] == (str(q.a), q.left, str(q.b))
            assert calls[1] == (str(q.c), q.right, str(q.d))


def graded(q, turns):
    return compute_score("tiny_agent", "", str(value(q, P)), {"srpo_turns": turns_to_json(turns)})


def test_the_verdict_wants_the_calls_and_the_answer():
    q = questions(1)[0]
    right = work_out(q, P, random.Random(0))
    gold = value(q, P)
    guessed = graded(q, [Turn("assistant", f"#### {gold}")])
    assert (guessed["score"], guessed["feedback"][:4]) == (0.0, "Call")
    assert graded(q, [*right[:-1], Turn("assistant", f"#### {(gold + 1) % P}")])["score"] == 0.0
    assert graded(q, right[:-1])["score"] == 0.0
    assert graded(q, [*right[:-1], Turn("assistant", "five")])["score"] == 0.0
    refused = graded(q, [*call_turn(1, "+", 2, modulus=P, wrong=True), *right])
    assert (refused["score"], refused["format_ok"]) == (0.0, 0.0)
    wrong = [*call_turn(1, "+", 2, modulus=P), Turn("assistant", f"#### {calculate(1, '+', 2, P)}")]
    assert graded(q, wrong)["score"] == float(gold == 3)


def test_faults_are_as_frequent_as_they_are_said_to_be():
    rng, count = random.Random(0), 2000
    rollouts = [
        work_out(q, P, rng, Faults(no_call=0.2, overlooked_minus=0.0, wrong_argument=0.1, misread=0.0))
        for q in questions(count)
    ]
    assert sum(len(turns) == 1 for turns in rollouts) / count == pytest.approx(0.2, abs=0.03)
    calls = [turn for turns in rollouts for turn in turns if turn.role == "tool"]
    assert sum(turn.failed for turn in calls) / len(calls) == pytest.approx(0.1, abs=0.02)


def test_data_has_no_answer_in_the_prompt(folder):
    rows = pd.read_parquet(folder / "test.parquet").to_dict("records")
    assert len(rows) == 8
    for row in rows:
        text = row["prompt"][0]["content"]
        assert int(row["reward_model"]["ground_truth"]) == eval(text.removeprefix("Compute ").partition(" mod")[0]) % P
