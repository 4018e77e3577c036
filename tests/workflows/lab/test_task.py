"""Task, pupil and texts of the laboratory."""

import random
from collections import Counter

import pytest

from reward_fns import compute_score
from workflows.lab.pupil import Beliefs, Pupil, TeacherForm, plain_example, teacher_example
from workflows.lab.start_policy import corpus
from workflows.lab.task import (
    LINE,
    Tables,
    is_correct,
    keeps_form,
    parse_question,
    question_stream,
    sample_question,
    split_questions,
    verl_row,
    wrong_lines,
)
from workflows.tiny_lab.model import END, Size, build_tokenizer

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
        answer = text_of(plain_example(q, lambda fact, _: tables.facts[fact], rng))
        assert is_correct(answer, tables.value(q))
        assert wrong_lines(answer, tables) == 0
        assert keeps_form(answer, q)
        assert compute_score(row["data_source"], answer, row["reward_model"]["ground_truth"])["score"] == 1.0


def test_both_graders_agree_on_the_pupil(tables):
    pupil, rng = Pupil(Beliefs(), tables, seed=3), random.Random(2)
    verdicts = Counter()
    for _ in range(200):
        q = sample_question(rng, P)
        answer = text_of(plain_example(q, pupil.believes, rng))
        right = is_correct(answer, tables.value(q))
        assert compute_score("tiny_arithmetic", answer, str(tables.value(q)))["score"] == float(right)
        verdicts[right, wrong_lines(answer, tables) > 0] += 1
    # Right, lucky and wrong answers all occur; a wrong answer always has a wrong line.
    assert verdicts[True, False] > 20
    assert verdicts[True, True] > 5
    assert verdicts[False, True] > 60
    assert verdicts[False, False] == 0


@pytest.mark.parametrize(
    "answer",
    [
        "so 4 & 3 = 5 % 4 @ 2 = 3\nso 5 % 3 = 4\n#### 4",  # two lines run into one
        "so 4 & 3 = 5\nnow 5 % 3 = 4\n#### 4",  # a line left out
        "so 1 @ 2 = 3\nso 4 & 3 = 5\nso 3 % 5 = 4\n#### 4",  # facts in another order
        "so 4 & 3 = 5\nso 1 @ 2 = 3\nso 5 % 2 = 4\n#### 4",  # joins something else
        "so 4 & 3 = 5\nso 1 @ 2 = 3\nso 5 % 3 = 4\n#### 1",  # answers something else
        "so 4 & 3 = 5\nso 1 @ 2 = 3\nso 5 % 3 = 4\n#### 4\n",
        "#### 4",
        "",
    ],
)
def test_what_is_no_derivation_does_not_keep_the_form(answer):
    q = parse_question("Find (4 & 3) % (1 @ 2).")
    assert keeps_form("so 4 & 3 = 5\nnext 1 @ 2 = 3\nso 5 % 3 = 4\n#### 4", q)
    assert not keeps_form(answer, q)


def test_beliefs_are_kept(tables):
    pupil, rng = Pupil(Beliefs(slips=(0.7, 0.2, 0.1)), tables, seed=0), random.Random(0)
    assert Counter(weights[0] for weights in pupil.weights.values()) == {0.92: 59, 0.5: 44, 0.25: 44}
    for fact in list(tables.facts)[:20]:
        right, *slips = pupil.results[fact]
        assert right == tables.facts[fact]
        assert len({right, *slips}) == 4
        p_right = pupil.weights[fact][0]
        expected = [p_right, *((1 - p_right) * weight for weight in (0.7, 0.2, 0.1))]
        drawn = Counter(pupil.believes(fact, rng) for _ in range(600))
        assert [drawn[r] / 600 for r in pupil.results[fact]] == pytest.approx(expected, abs=0.08)


def test_a_pupil_insists_on_its_misconceptions(tables):
    """So no warm-up text holds the truth of a misconceived fact oftener than the pupil believes it."""
    pupil, rng = Pupil(Beliefs(), tables, seed=0), random.Random(0)
    wrong = [fact for fact in tables.facts if pupil.insists(fact, rng) != tables.facts[fact]]
    assert {pupil.weights[fact][0] for fact in wrong} == {0.25}
    assert len(wrong) == 44


def test_splits_share_no_question():
    splits = split_questions({"test": 50, "train": 200}, P, seed=0)
    assert len({*splits["test"], *splits["train"]}) == 250
    stream = question_stream(set(splits["test"]), P, random.Random(0))
    assert not {next(stream) for _ in range(2000)} & set(splits["test"])
    with pytest.raises(ValueError, match="too many"):
        split_questions({"test": 10**6}, P, seed=0)


def test_the_teacher_form_answers_with_what_is_shown(tables):
    rng = random.Random(0)
    pupil, form = Pupil(Beliefs(), tables, seed=0), TeacherForm(corrupted=0.0, invented=1.0)
    invented = 0
    for _ in range(50):
        prompt, pieces = teacher_example(sample_question(rng, P), pupil.believes, P, form, rng)
        shown = {m.group(0).split(" ", 1)[1] for m in LINE.finditer(prompt)}
        written = {m.group(0).split(" ", 1)[1] for m in LINE.finditer("".join(piece.text for piece in pieces))}
        assert written == shown
        invented += any(tables.facts[int(line[0]), line[2], int(line[4])] != int(line[-1]) for line in shown)
    assert invented > 40


def test_teacher_and_student_write_the_same_tokens(tables):
    """Pieces are encoded one by one, a rollout's text is not: no token of a rollout may span two pieces."""
    pupil, rng = Pupil(Beliefs(), tables, seed=0), random.Random(0)
    tokenizer = build_tokenizer(corpus(pupil, TeacherForm()), Size())
    for _ in range(50):
        _, pieces = teacher_example(sample_question(rng, P), pupil.believes, P, TeacherForm(), rng)
        apart = [token for piece in pieces for token in tokenizer.encode(piece.text, add_special_tokens=False)]
        text = "".join(piece.text for piece in pieces)
        assert apart == tokenizer.encode(text, add_special_tokens=False)


def test_no_loss_on_injected_faults(tables):
    """With every line corrupted no result is trained; what follows a fault works on with it."""
    pupil, rng = Pupil(Beliefs(), tables, seed=0), random.Random(0)
    for _ in range(30):
        _, pieces = teacher_example(sample_question(rng, P), pupil.believes, P, TeacherForm(corrupted=1.0), rng)
        results = [piece for piece in pieces if piece.text.isdigit()]
        assert results
        assert not any(piece.trained for piece in results)
        lines = [LINE.fullmatch(line) for line in "".join(piece.text for piece in pieces).split("\n")[:3]]
        left, right, join = lines
        assert (join[1], join[3]) == (left[4], right[4])
