"""The teacher's messages: what is inserted where, thinking removed, wrong input refused."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpo_verl.core import SECTIONS, strip_thinking, teacher_messages, visible_answer

INSTRUCTION = "\n\nCorrectly solve the original question."
QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2 + 3? {x} {0}"}]


def shown(*, demonstration=None, feedback=None):
    texts = {"sibling": demonstration, "feedback": feedback}
    return [(SECTIONS[name], text) for name, text in texts.items() if text is not None]


class TestStripThinking:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("no tags", "no tags"),
            ("<think>a</think>b", "b"),
            ("<think>a</think>\n\nb ", "b "),
            ("<think>\n</think> x <think>y</think> z", "x z"),
            ("begun in the prompt</think>\nb", "b"),
            ("a <think>b", "a <think>b"),
            ("a <think>b</think> c <think>d", "a c <think>d"),
            ("<think>a<think>b</think>c</think>d", "d"),
            (" a\n", " a\n"),
            ("", ""),
            ("</think>", ""),
            ("<Think>kept</Think>", "<Think>kept</Think>"),
        ],
    )
    def test_examples(self, text, expected):
        assert strip_thinking(text) == expected

    @given(st.lists(st.sampled_from(["<think>", "</think>", "a", " ", "\n"])).map("".join))
    def test_leaves_no_closing_tag_and_is_idempotent(self, text):
        once = strip_thinking(text)
        assert "</think>" not in once
        assert strip_thinking(once) == once

    def test_linear_time(self):
        started = time.process_time()
        strip_thinking("<think>" * 200_000)
        strip_thinking("<think>" * 100_000 + "</think>" * 100_000)
        assert time.process_time() - started < 2.0


class TestTeacherMessages:
    def test_demonstration(self):
        messages = teacher_messages(QUESTION, shown(demonstration="It is {five} %s."))
        assert messages == [
            QUESTION[0],
            {
                "role": "user",
                "content": "What is 2 + 3? {x} {0}\nCorrect solution:\n\nIt is {five} %s.\n\n"
                "Correctly solve the original question.",
            },
        ]

    def test_feedback(self):
        content = teacher_messages(QUESTION, shown(feedback="{wrong} unit"))[-1]["content"]
        assert content == (
            "What is 2 + 3? {x} {0}\nThe following is feedback from your unsuccessful earlier attempt:\n\n"
            "{wrong} unit\n\nCorrectly solve the original question."
        )

    def test_both(self):
        content = teacher_messages(QUESTION, shown(demonstration="S", feedback="F"))[-1]["content"]
        assert content == (
            "What is 2 + 3? {x} {0}\nCorrect solution:\n\nS\nThe following is feedback from your unsuccessful earlier "
            "attempt:\n\nF\n\nCorrectly solve the original question."
        )

    def test_thinking(self):
        assert visible_answer("<think>hm</think>\n5") == "5"

    def test_an_answer_of_thinking_only_is_kept(self):
        for text in ("<think>5</think>", " <think>5</think>\n"):
            assert visible_answer(text) == text

    def test_template_and_sections_are_yours(self):
        """Braces of question and text are text; what the template says around them is kept."""
        information = [("[{text}]", "{prompt}"), ("({text})", "{information}")]
        content = teacher_messages(QUESTION, information, template="{x} {prompt} / {information} {y}")[-1]["content"]
        assert content == "{x} What is 2 + 3? {x} {0} / [{prompt}]({information}) {y}"

    @pytest.mark.parametrize("template", ["", "{prompt}", "{information}", "{prompt}{prompt}{information}"])
    def test_a_template_without_its_places_is_refused(self, template):
        with pytest.raises(ValueError, match=r"must hold \{\w+\} once"):
            teacher_messages(QUESTION, shown(demonstration="S"), template=template)

    def test_a_section_without_its_place_is_refused(self):
        with pytest.raises(ValueError, match=r"must hold \{text\} once"):
            teacher_messages(QUESTION, [("no place", "S")])

    def test_system_prompt_of_the_teacher(self):
        messages = teacher_messages(QUESTION, shown(demonstration="S"), system_prompt="Teach.")
        assert messages[0] == {"role": "system", "content": "Teach."}
        assert messages[1:] == teacher_messages(QUESTION, shown(demonstration="S"))[1:]
        alone = teacher_messages(QUESTION[1:], shown(demonstration="S"), system_prompt="Teach.")
        assert alone == messages
        assert QUESTION[0]["content"] == "Be brief."

    def test_the_last_user_message_is_the_question(self):
        history = [
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "answer", "extra": 1},
            {"role": "user", "content": "second"},
            {"role": "tool", "content": "result"},
        ]
        messages = teacher_messages(history, shown(demonstration="S"))
        assert messages[:2] == history[:2]
        assert messages[2]["content"] == "second\nCorrect solution:\n\nS" + INSTRUCTION
        assert messages[3:] == history[3:]

    def test_the_input_is_not_changed_and_may_be_an_array(self):
        row = np.array([dict(message) for message in QUESTION], dtype=object)
        assert teacher_messages(row, shown(demonstration="S")) == teacher_messages(QUESTION, shown(demonstration="S"))
        assert row.tolist() == QUESTION

    @pytest.mark.parametrize(
        ("messages", "message"),
        [
            ("What is 2 + 3?", "not a str"),
            ({"role": "user", "content": "x"}, "not a dict"),
            (None, "not a NoneType"),
            (["What is 2 + 3?"], "message 0 is a str"),
            ([{"role": "user"}], "message 0 has no 'content'"),
            ([{"content": "x"}], "message 0 has no 'role'"),
            ([], "no user message"),
            ([{"role": "system", "content": "x"}], "no user message"),
            ([{"role": "user", "content": [{"type": "text", "text": "x"}]}], "content of message 0 .* is a list"),
            ([{"role": "user", "content": None}], "content of message 0 .* is a NoneType"),
        ],
    )
    def test_malformed_messages_are_named(self, messages, message):
        with pytest.raises(ValueError, match=message):
            teacher_messages(messages, shown(demonstration="S"))

    def test_nothing_to_show(self):
        with pytest.raises(ValueError, match="nothing to show"):
            teacher_messages(QUESTION, [])

    def test_information_must_be_text(self):
        with pytest.raises(ValueError, match="must be a text, not a int"):
            teacher_messages(QUESTION, shown(demonstration=5))
