"""Task, pupil and texts of the laboratory."""

import random
from collections import Counter

import pytest

from laboratory.start_policy import StartPolicy, answered
from laboratory.task import is_correct, keeps_form, random_tables, wrong_lines
from reward_fns import compute_score
from tests.workflows.tiny.fingerprints import fingerprints
from workflows.tiny.model import END, build_tokenizer
from workflows.tiny.pupil import Pupil
from workflows.tiny.texts import TeacherForm, teacher_example

P = 7


def text_of(example):
    return "".join(piece.text for piece in example[1]).removesuffix(END)


@pytest.fixture
def task():
    return random_tables(P, seed=3)


@pytest.fixture
def pupil(task):
    return Pupil(StartPolicy().beliefs, task, random.Random("pupil 0"))


def test_the_start_policy_is_the_one_of_the_published_runs():
    assert fingerprints(StartPolicy()) == {
        "facts": "9c848a555ef7f81297f567b48301c08e92bf1b4b1c3776d738926d0aef36294f",
        "questions": "60109807c2dee75cc4ce542fd186fe281aa853dc466208cbf4ea57b69748d9eb",
        "beliefs": "5ff1a941da02a3c96ad09e0e4f2c2452d046ddf3465b98e4df4015ad95913486",
        "corpus": "c05de113ab8c98c4ce21939fedf0681b1dd0cf6edc077c6c067903e643a62d8b",
        "texts": "3fd5ef50b3ac327391d26f6654ce3f47d020ca90291241294470f4030599ae1b",
    }


def test_tables_depend_on_the_seed_alone(task):
    assert task == random_tables(P, seed=3)
    assert task.facts != random_tables(P, seed=4).facts
    assert len(task.facts) == 147
    with pytest.raises(ValueError, match="single digits"):
        random_tables(11, seed=0)


def test_question_and_text_are_inverse(task):
    rng = random.Random(0)
    for _ in range(50):
        q = task.sample(rng)
        assert task.parse(task.text(q)) == q
    with pytest.raises(ValueError, match="not a question"):
        task.parse("Find 3 & 4.")


def test_true_derivations_are_right_by_both_graders(task):
    rng = random.Random(1)
    for _ in range(100):
        q = task.sample(rng)
        row = task.verl_row(q, 0, "train")
        answer = text_of(answered(task, q, task.knows, rng))
        assert is_correct(answer, task.value(q))
        assert wrong_lines(answer, task) == 0
        assert keeps_form(answer, q, task)
        assert compute_score(row["data_source"], answer, row["reward_model"]["ground_truth"])["score"] == 1.0


def test_both_graders_agree_on_the_pupil(task, pupil):
    rng = random.Random(2)
    verdicts = Counter()
    for _ in range(200):
        q = task.sample(rng)
        answer = text_of(answered(task, q, pupil.believes, rng))
        right = is_correct(answer, task.value(q))
        assert compute_score("tiny_arithmetic", answer, str(task.value(q)))["score"] == float(right)
        verdicts[right, wrong_lines(answer, task) > 0] += 1
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
def test_what_is_no_derivation_does_not_keep_the_form(answer, task):
    q = task.parse("Find (4 & 3) % (1 @ 2).")
    assert keeps_form("so 4 & 3 = 5\nnext 1 @ 2 = 3\nso 5 % 3 = 4\n#### 4", q, task)
    assert not keeps_form(answer, q, task)


def test_beliefs_are_kept(task, pupil):
    rng = random.Random(0)
    assert Counter(weights[0] for weights in pupil.weights.values()) == {0.92: 59, 0.5: 44, 0.25: 44}
    for fact in list(task.facts)[:20]:
        right, *slips = pupil.results[fact]
        assert right == task.facts[fact]
        assert len({right, *slips}) == 4
        p_right = pupil.weights[fact][0]
        expected = [p_right, *((1 - p_right) * weight for weight in (0.7, 0.15, 0.15))]
        drawn = Counter(pupil.believes(fact, rng) for _ in range(600))
        assert [drawn[r] / 600 for r in pupil.results[fact]] == pytest.approx(expected, abs=0.08)


def test_a_pupil_insists_on_its_misconceptions(task, pupil):
    """So no warm-up text holds the truth of a misconceived fact oftener than the pupil believes it."""
    rng = random.Random(0)
    wrong = [fact for fact in task.facts if pupil.insists(fact, rng) != task.facts[fact]]
    assert {pupil.weights[fact][0] for fact in wrong} == {0.25}
    assert len(wrong) == 44


def lines_of(task, text):
    return [stated for line in text.split("\n") if (stated := task.parse_line(line))]


def test_the_teacher_form_answers_with_what_is_shown(task, pupil):
    rng, form = random.Random(0), TeacherForm(corrupted=0.0, invented=1.0)
    invented = 0
    for _ in range(50):
        prompt, pieces = teacher_example(task, task.sample(rng), pupil.believes, form, rng)
        shown = lines_of(task, prompt)
        assert lines_of(task, "".join(piece.text for piece in pieces)) == shown
        assert len(shown) == 3
        invented += any(task.facts[fact] != result for fact, result in shown)
    assert invented > 40


def test_teacher_and_student_write_the_same_tokens(task, pupil):
    """Pieces are encoded one by one, a rollout's text is not: no token of a rollout may span two pieces."""
    start, rng = StartPolicy(), random.Random(0)
    tokenizer = build_tokenizer(start.corpus(), start.size)
    for _ in range(50):
        _, pieces = teacher_example(task, task.sample(rng), pupil.believes, start.teacher_form, rng)
        apart = [token for piece in pieces for token in tokenizer.encode(piece.text, add_special_tokens=False)]
        text = "".join(piece.text for piece in pieces)
        assert apart == tokenizer.encode(text, add_special_tokens=False)


def test_no_loss_on_injected_faults(task, pupil):
    """With every line corrupted no result is trained; what follows a fault works on with it."""
    rng, form = random.Random(0), TeacherForm(corrupted=1.0, wrong_operators=False)
    for _ in range(30):
        _, pieces = teacher_example(task, task.sample(rng), pupil.believes, form, rng)
        results = pieces[3:-1:4]
        assert len(results) == 3
        assert not any(piece.trained for piece in results)
        left, right, join = lines_of(task, "".join(piece.text for piece in pieces))
        assert (join[0][0], join[0][2]) == (left[1], right[1])


def test_a_doubted_fact_has_no_loss_in_any_line(task, pupil):
    rng = random.Random(0)
    q = task.parse("Find (4 & 3) % (4 & 3).")
    seen = Counter()
    for _ in range(200):
        for doubt in (False, True):
            form = TeacherForm(corrupted=0.5, invented=0.0, wrong_operators=False, doubt_fact=doubt)
            _, pieces = teacher_example(task, q, pupil.believes, form, rng)
            seen[doubt, pieces[3].trained, pieces[7].trained] += 1
    assert seen[False, True, False] > 20
    assert seen[True, True, False] == seen[True, False, True] == 0
