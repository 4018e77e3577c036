"""Task, pupil and texts of the laboratory."""

import random
from collections import Counter

import pytest

from reward_fns import compute_score
from workflows.lab.pupil import Beliefs, Pupil, TeacherForm, plain_example, teacher_example
from workflows.lab.task import (
    LINE,
    Tables,
    is_correct,
    parse_question,
    question_stream,
    sample_question,
    split_questions,
    verl_row,
    wrong_lines,
)
from workflows.tiny_lab.model import END

P = 7


def text_of(example):
    return "".join(piece.text for piece in example[1]).removesuffix(END)


@pytest.fixture
def tables():
    return Tables(P, seed=3)


def test_tables_depend_on_the_seed_alone(tables):
    assert tables.facts == Tables(P, seed=3).facts
    assert tables.facts != Tables(P, seed=4).facts
    assert len(tables.facts) == 147
    with pytest.raises(ValueError, match="single digits"):
        Tables(11, seed=0)


def test_question_and_text_are_inverse():
    rng = random.Random(0)
    for _ in range(50):
        q = sample_question(rng, P)
        assert parse_question(str(q)) == q
    with pytest.raises(ValueError, match="not a question"):
        parse_question("Find 3 & 4.")


def test_true_derivations_are_right_by_both_graders(tables):
    rng = random.Random(1)
    for _ in range(100):
        q = sample_question(rng, P)
        row = verl_row(q, tables, 0, "train")
        answer = text_of(plain_example(q, tables, None, rng))
        assert is_correct(answer, tables.value(q))
        assert wrong_lines(answer, tables) == 0
        assert compute_score(row["data_source"], answer, row["reward_model"]["ground_truth"])["score"] == 1.0


def test_both_graders_agree_on_the_pupil(tables):
    pupil, rng = Pupil(Beliefs(), tables, seed=3), random.Random(2)
    verdicts = Counter()
    for _ in range(200):
        q = sample_question(rng, P)
        answer = text_of(plain_example(q, tables, pupil, rng))
        right = is_correct(answer, tables.value(q))
        assert compute_score("tiny_arithmetic", answer, str(tables.value(q)))["score"] == float(right)
        verdicts[right, wrong_lines(answer, tables) > 0] += 1
    # Right, lucky and wrong answers all occur; a wrong answer always has a wrong line.
    assert verdicts[True, False] > 20
    assert verdicts[True, True] > 5
    assert verdicts[False, True] > 60
    assert verdicts[False, False] == 0


def test_beliefs_are_kept(tables):
    beliefs = Beliefs(shaky=0.3, misconceived=0.3, p_known=0.92, p_shaky=0.5, p_misconceived=0.25)
    pupil, rng = Pupil(beliefs, tables, seed=0), random.Random(0)
    counts = Counter(pupil.p_right.values())
    assert counts == {0.92: 59, 0.5: 44, 0.25: 44}
    for fact in list(tables.facts)[:20]:
        drawn = Counter(pupil.believes(fact, rng) for _ in range(600))
        assert set(drawn) <= {tables.facts[fact], *pupil.slips[fact]}
        assert drawn[tables.facts[fact]] / 600 == pytest.approx(pupil.p_right[fact], abs=0.08)


def test_splits_share_no_question():
    splits = split_questions({"test": 50, "train": 200}, P, seed=0)
    assert len({*splits["test"], *splits["train"]}) == 250
    stream = question_stream(set(splits["test"]), P, random.Random(0))
    assert not {next(stream) for _ in range(2000)} & set(splits["test"])
    with pytest.raises(ValueError, match="too many"):
        split_questions({"test": 10**6}, P, seed=0)


def test_the_teacher_form_answers_with_what_is_shown(tables):
    rng = random.Random(0)
    form = TeacherForm(corrupted=0.0, invented=1.0)
    invented = 0
    for _ in range(50):
        prompt, pieces = teacher_example(sample_question(rng, P), tables, None, form, rng)
        shown = {m.group(0).split(" ", 1)[1] for m in LINE.finditer(prompt)}
        written = {m.group(0).split(" ", 1)[1] for m in LINE.finditer("".join(piece.text for piece in pieces))}
        assert written == shown
        invented += any(tables.facts[int(line[0]), line[2], int(line[4])] != int(line[-1]) for line in shown)
    assert invented > 40


def test_no_loss_on_injected_faults(tables):
    """With every line corrupted no result is trained; what follows a fault works on with it."""
    rng = random.Random(0)
    for _ in range(30):
        _, pieces = teacher_example(sample_question(rng, P), tables, None, TeacherForm(corrupted=1.0), rng)
        results = [piece for piece in pieces if piece.text.isdigit()]
        assert results
        assert not any(piece.trained for piece in results)
        lines = [LINE.fullmatch(line) for line in "".join(piece.text for piece in pieces).split("\n")[:3]]
        left, right, join = lines
        assert (join[1], join[3]) == (left[4], right[4])
