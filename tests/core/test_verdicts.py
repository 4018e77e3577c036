"""Verdicts of a grader: numbers of any kind pass, everything else becomes an undecided 0."""

import math
from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srpo_verl.core import PROBLEMS, checked_verdict

RANGE = (0.0, 1.0)


@pytest.mark.parametrize(
    "score", [1, 1.0, True, np.float32(1), np.int64(1), np.bool_(True), torch.tensor(1.0), Decimal(1)]
)
def test_numbers_of_any_kind_pass(score):
    value, info, problem = checked_verdict(score, {"acc": score, "feedback": "?"}, allowed=RANGE)
    assert (value, problem) == (1.0, "")
    assert type(value) is float
    assert info == {"acc": 1.0, "feedback": "?"}


def test_the_input_is_not_changed():
    given_info = {"acc": "no"}
    checked_verdict(None, given_info, allowed=RANGE)
    assert given_info == {"acc": "no"}


def test_an_acc_of_none_leaves_the_verdict_to_the_score():
    assert checked_verdict(0.7, {"acc": None}, allowed=RANGE) == (0.7, {}, "")


def test_a_range_of_ones_own_or_none():
    assert checked_verdict(-1.0, None, allowed=(-1.0, 1.0)) == (-1.0, {}, "")
    assert checked_verdict(40.0, None, allowed=None) == (40.0, {}, "")
    assert checked_verdict(math.inf, None, allowed=None)[2] == "not_finite"


anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.floats()),
    st.dictionaries(st.text(), st.floats()), st.complex_numbers(),
)  # fmt: skip


@given(anything, st.one_of(st.none(), st.dictionaries(st.sampled_from(["acc", "score", "feedback"]), anything)))
def test_whatever_comes_the_result_can_be_computed_with(score, info):
    value, kept, problem = checked_verdict(score, info, allowed=RANGE)
    assert math.isfinite(value)
    assert 0 <= value <= 1
    assert problem in ("", *PROBLEMS)
    assert "acc" not in kept or math.isfinite(kept["acc"])
    assert (kept.get("infra_error") == 1.0) or not problem
    # Checking what was checked changes nothing.
    assert problem or checked_verdict(value, kept, allowed=RANGE) == (value, kept, "")
