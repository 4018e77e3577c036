"""pass@k, maj@k and intervals against values worked out by hand and by enumeration."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.evaluate.metrics import bootstrap, majority, pass_at_k, powers_of_two


@pytest.mark.parametrize(
    ("n", "correct", "k", "expected"),
    [
        (4, 2, 1, 0.5),
        (4, 2, 2, 1 - 1 / 6),  # of 6 pairs, one has only wrong answers
        (4, 2, 3, 1.0),  # any three include a right one
        (16, 0, 16, 0.0),
        (16, 1, 8, 0.5),
        (5, 5, 1, 1.0),
    ],
)
def test_pass_at_k_by_hand(n, correct, k, expected):
    assert pass_at_k(n, correct, k) == pytest.approx(expected, abs=1e-12)


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(case):
    n, correct, k = case
    subsets = list(combinations([1] * correct + [0] * (n - correct), k))
    assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@pytest.mark.parametrize("case", [(4, 2, 5), (4, 2, 0), (4, 5, 1), (4, -1, 1)])
def test_pass_at_k_of_impossible_numbers(case):
    with pytest.raises(ValueError, match="pass@k needs"):
        pass_at_k(*case)


@pytest.mark.parametrize(
    ("answers", "correct", "expected"),
    [
        (["A", "A", "B"], [1, 1, 0], 1.0),
        (["A", "B", "B"], [1, 0, 0], 0.0),
        (["A", "B"], [1, 0], 0.5),  # a tie is drawn
        (["A", "B", "C"], [1, 0, 0], 1 / 3),
        (["", "", "A"], [0, 0, 1], 1.0),  # no answer, no vote
        (["", ""], [0, 0], 0.0),
        (["A", "A"], [1, 0], 0.5),  # the grader looked at more than the answer
    ],
)
def test_majority_by_hand(answers, correct, expected):
    assert majority(answers, correct) == pytest.approx(expected)


def test_bootstrap_is_the_mean_with_an_interval_that_can_be_repeated():
    values = [0.0, 1.0] * 50
    one = bootstrap(values, seed=3)
    assert one == bootstrap(values, seed=3)
    assert one != bootstrap(values, seed=4)
    assert one.value == 0.5
    # The mean of 100 coin flips has standard deviation 0.05: 95 % lie within about 0.098 of it.
    assert one.low == pytest.approx(0.402, abs=0.015)
    assert one.high == pytest.approx(0.598, abs=0.015)
    certain = bootstrap([0.25] * 7, seed=0)
    assert (certain.value, certain.low, certain.high) == (0.25, 0.25, 0.25)
    with pytest.raises(ValueError, match="no question"):
        bootstrap([], seed=0)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = [
        (one := bootstrap(rng.binomial(16, 0.3, size=60) / 16, seed=seed, resamples=300)).low <= 0.3 <= one.high
        for seed in range(200)
    ]
    assert 0.88 <= np.mean(covered) <= 0.99


def test_the_reported_k():
    assert powers_of_two(1) == [1]
    assert powers_of_two(16) == [1, 2, 4, 8, 16]
    assert powers_of_two(6) == [1, 2, 4, 6]
