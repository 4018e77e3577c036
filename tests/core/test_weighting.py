"""Entropy-aware weights: reference values, mean 1, stability."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srpo_verl.core import entropy_weights, turn_numbers, turn_weights

TOKENS = st.lists(st.tuples(st.floats(0, 12), st.booleans()), min_size=1, max_size=30)


def unpack(tokens):
    return torch.tensor([t[0] for t in tokens], dtype=torch.float64), torch.tensor([t[1] for t in tokens])


def test_reference_values():
    weights = entropy_weights(torch.tensor([0.1, 0.5, 1.2], dtype=torch.float64), torch.ones(3, dtype=torch.bool))
    assert weights.tolist() == pytest.approx([1.497610, 1.003878, 0.498511], abs=1e-6)


@given(TOKENS, st.floats(0, 20))
def test_mean_is_one_and_outside_is_zero(tokens, beta):
    entropy, mask = unpack(tokens)
    weights = entropy_weights(entropy, mask, beta=beta)
    assert torch.equal(weights[~mask], torch.zeros_like(weights[~mask]))
    assert (weights >= 0).all()
    if mask.any():
        assert weights[mask].mean().item() == pytest.approx(1.0, abs=1e-12)


@given(TOKENS, st.floats(-50, 50), st.floats(0.1, 3))
def test_only_differences_of_beta_times_entropy_count(tokens, shift, beta):
    entropy, mask = unpack(tokens)
    weights = entropy_weights(entropy, mask, beta=beta)
    torch.testing.assert_close(entropy_weights(entropy + shift, mask, beta=beta), weights, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(entropy_weights(2 * entropy, mask, beta=beta / 2), weights, rtol=1e-9, atol=1e-9)


@given(TOKENS)
def test_surer_teachers_weigh_more(tokens):
    entropy, mask = unpack(tokens)
    weights, inside = entropy_weights(entropy, mask)[mask], entropy[mask]
    in_order = weights[inside.argsort()]
    assert (in_order.diff() <= 1e-12).all()


def test_the_mean_is_global_not_per_part():
    entropy = torch.tensor([0.0, 0.0, 3.0, 3.0], dtype=torch.float64)
    mask = torch.ones(4, dtype=torch.bool)
    whole = entropy_weights(entropy, mask)
    assert whole[0] > 1.9
    assert whole[2] < 0.1
    assert entropy_weights(entropy[:2], mask[:2]).tolist() == [1.0, 1.0], "what splitting first would give"


def test_large_exponents_do_not_underflow_to_nothing():
    entropy = torch.tensor([5.0, 5.0, 6.0])
    weights = entropy_weights(entropy, torch.ones(3, dtype=torch.bool), beta=1e4)
    assert weights.tolist() == [1.5, 1.5, 0.0]


def test_beta_zero_is_one_on_the_mask():
    mask = torch.tensor([[True, False], [True, True]])
    assert entropy_weights(torch.rand(2, 2), mask, beta=0.0).tolist() == [[1.0, 0.0], [1.0, 1.0]]


def test_empty_mask_and_empty_tensor():
    assert entropy_weights(torch.rand(4), torch.zeros(4, dtype=torch.bool)).tolist() == [0.0] * 4
    assert entropy_weights(torch.empty(0), torch.empty(0, dtype=torch.bool)).shape == (0,)


def test_values_outside_the_mask_are_never_read():
    entropy = torch.tensor([1.0, float("nan"), float("inf"), 1.0])
    mask = torch.tensor([1, 0, 0, 1])
    assert entropy_weights(entropy, mask).tolist() == [1.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("given", "returned"),
    [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)],
)
def test_dtypes(given, returned):
    weights = entropy_weights(torch.linspace(0, 3, 1001).to(given), torch.ones(1001, dtype=torch.bool))
    assert weights.dtype == returned
    assert weights.mean().item() == pytest.approx(1.0, abs=1e-6)


def test_is_a_constant_for_the_gradient():
    assert not entropy_weights(torch.rand(3, requires_grad=True), torch.ones(3, dtype=torch.bool)).requires_grad


@pytest.mark.parametrize("beta", [-0.1, float("nan"), float("inf")])
def test_beta_must_be_a_number_from_zero_up(beta):
    with pytest.raises(ValueError, match="beta"):
        entropy_weights(torch.rand(2), torch.ones(2), beta=beta)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="same shape"):
        entropy_weights(torch.rand(2), torch.ones(3))
    with pytest.raises(ValueError, match="1 of 2 entropies"):
        entropy_weights(torch.tensor([0.0, float("nan")]), torch.ones(2))


def test_turns_are_the_stretches_of_the_mask():
    mask = torch.tensor([1, 1, 0, 1, 0, 0, 1, 1])
    assert turn_numbers(mask).tolist() == [0, 0, -1, 1, -1, -1, 2, 2]
    assert turn_numbers(torch.tensor([0, 1])).tolist() == [-1, 0]
    assert turn_numbers(torch.zeros(0)).tolist() == []


def test_every_turn_counts_alike_and_the_mean_is_one():
    """Six tokens in three turns: each turn has 2 in all."""
    weights = turn_weights(torch.tensor([7, 7, 7, 2, 9, 9]))
    assert weights.tolist() == pytest.approx([2 / 3] * 3 + [2.0] + [1.0] * 2)
    assert float(weights.mean()) == pytest.approx(1.0)
    assert turn_weights(torch.zeros(0, dtype=torch.int64)).shape == (0,)
