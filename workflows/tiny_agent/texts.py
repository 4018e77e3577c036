"""Texts of the warm-up, in two forms: the question, and the question with a sibling's conversation (the teacher's)."""

from __future__ import annotations

import random
import re

from srpo_verl.core import SECTIONS, PromptParts, Turn, TurnPrompt
from workflows.tiny.model import END, START
from workflows.tiny.task import ANSWER_MARK, Question
from workflows.tiny.texts import Example, Piece
from workflows.tiny_agent.task import call_text, call_turn, chat_text, question_messages, work_out

# Share of the calls of the teacher's form in which a fault is injected, without loss on it.
CORRUPTED = 0.15
OPERATORS = "+-*"


def plain_example(q: Question, modulus: int, turns: list[Turn]) -> Example:
    """A question and its rollout."""
    return chat_text(question_messages(q, modulus)), pieces_of(turns)


def teacher_example(q: Question, modulus: int, rng: random.Random) -> Example:
    """A question with the conversation of a right rollout, answered as shown, with faults injected.

    Behind a fault the working goes on from what stands there; where the calculator has refused a call, from what the
    demonstration has in its place.
    """
    parts = PromptParts.of(question_messages(q, modulus), [(SECTIONS["sibling"], "")])
    prompt = chat_text(TurnPrompt.of(parts, work_out(q, modulus, rng), demonstration="conversation").whole())
    pieces: list[Piece] = []

    def ask(a: int, op: str, b: int) -> int:
        fault = rng.choice(("operator", "argument", "result")) if rng.random() < CORRUPTED else ""
        right = call_turn(a, op, b, modulus=modulus)[1].content
        used = rng.choice([other for other in OPERATORS if other != op]) if fault == "operator" else op
        turn, answer = call_turn(a, used, b, modulus=modulus, wrong=fault == "argument")
        pieces.extend(_call_pieces(turn, fault))
        pieces.append(_answer_piece(answer))
        if fault == "result":
            return rng.randrange(modulus)
        return int(right if answer.failed else answer.content)

    left, right = ask(q.a, q.left, q.b), ask(q.c, q.right, q.d)
    result = ask(left, q.join, right)
    return prompt, [*pieces, Piece(f"{ANSWER_MARK}{result}{END}")]


def pieces_of(turns: list[Turn]) -> list[Piece]:
    """The turns of a rollout as they stand in it; what the tool says carries no loss."""
    pieces = []
    for turn in turns:
        if turn.role == "tool":
            pieces.append(_answer_piece(turn))
        else:
            pieces.append(Piece(turn.content + "".join(map(call_text, turn.calls)) + END))
    return pieces


def _answer_piece(turn: Turn) -> Piece:
    return Piece(f"\n{START}tool\n{turn.content}{END}\n{START}assistant\n", trained=False)


def _call_pieces(turn: Turn, fault: str) -> list[Piece]:
    """A call, cut beside its digits only: elsewhere a rollout has other tokens."""
    before, a, op, b, behind = re.fullmatch(r"(.*)(\d)( . )(\d)(.*)", call_text(turn.calls[0])).groups()  # type: ignore[union-attr]
    return [
        Piece(before, trained=fault != "argument"),
        Piece(a),
        Piece(op, trained=fault != "operator"),
        Piece(b),
        Piece(behind + END),
    ]
