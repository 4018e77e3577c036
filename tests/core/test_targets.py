"""Top-K ids, teacher log-probs, full-vocabulary entropy, trust-region teacher."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srpo_verl.core import student_topk, target_statistics, topk_targets, trust_region_logits

TEACHER = torch.tensor([[0.5, 2.5, 0.0, -0.5]], dtype=torch.float64)
ROW = torch.tensor([0])


def random_logits(seed, tokens=9, vocabulary=23):
    return 3 * torch.randn(tokens, vocabulary, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_reference_values():
    student = torch.tensor([[2.0, 1.0, 0.0, -1.0]], dtype=torch.float64)
    ids = student_topk(student, ROW, 2)
    assert ids.tolist() == [[0, 1]]
    log_probs, entropy = target_statistics(TEACHER, ROW, ids)
    assert log_probs.exp()[0].tolist() == pytest.approx([0.106798, 0.789137], abs=1e-6)
    assert entropy.tolist() == pytest.approx([0.730219], abs=1e-6)


def test_entropy_is_over_the_full_vocabulary_whatever_k_is():
    """Top-2 plus tail would give 0.661240."""
    for k in (1, 2, 4):
        _, _, entropy = topk_targets(TEACHER, ROW, k)
        assert entropy.tolist() == pytest.approx([0.730219], abs=1e-6)


@settings(max_examples=40)
@given(
    st.integers(0, 10_000), st.integers(1, 23), st.integers(1, 8), st.lists(st.integers(0, 8), max_size=9, unique=True)
)
def test_against_dense_code_for_every_chunk_size(seed, k, chunk_size, rows):
    logits, rows = random_logits(seed), torch.tensor(rows, dtype=torch.int64)
    log_probs = logits.log_softmax(-1)[rows]
    expected_ids = log_probs.argsort(-1, descending=True)[:, :k]
    ids = student_topk(logits, rows, k, chunk_size=chunk_size)
    assert torch.equal(ids, expected_ids)
    at_ids, entropy = target_statistics(logits, rows, ids, chunk_size=chunk_size)
    torch.testing.assert_close(at_ids, log_probs.gather(-1, ids), rtol=0, atol=1e-12)
    torch.testing.assert_close(entropy, -(log_probs.exp() * log_probs).sum(-1), rtol=0, atol=1e-12)
    own = topk_targets(logits, rows, k, chunk_size=chunk_size)
    for one, other in zip(own, (ids, at_ids, entropy), strict=True):
        assert torch.equal(one, other)


@settings(max_examples=30)
@given(
    st.integers(0, 10_000), st.integers(1, 12), st.integers(3000, 3300), st.sampled_from(["normal", "even", "masked"])
)
def test_top_k_of_a_vocabulary_that_is_searched_in_blocks(seed, k, vocabulary, kind):
    """Among equal logits any will do; the values are those of a full sort, largest first."""
    logits = random_logits(seed, tokens=3, vocabulary=vocabulary)
    if kind == "even":
        logits = logits.round()
    if kind == "masked":
        logits[:, 5:] = -math.inf
    ids = student_topk(logits, torch.arange(3), k)
    assert all(len(set(row)) == k for row in ids.tolist())
    assert torch.equal(logits.gather(-1, ids), logits.sort(-1, descending=True).values[:, :k])


def test_ids_of_another_model_are_gathered_in_their_order():
    ids = torch.tensor([[3, 0]])
    log_probs, _ = target_statistics(TEACHER, ROW, ids)
    torch.testing.assert_close(log_probs, TEACHER.log_softmax(-1)[:, [3, 0]], rtol=0, atol=1e-12)


def test_entropy_of_certain_uniform_and_masked_rows():
    vocabulary = 1000
    certain = torch.full((vocabulary,), -math.inf)
    certain[3] = 2.0
    half = torch.zeros(vocabulary)
    half[500:] = -math.inf
    logits = torch.stack([certain, torch.full((vocabulary,), 7.0), half])
    log_probs, entropy = target_statistics(logits, torch.arange(3), torch.tensor([[3, 4], [0, 1], [0, 999]]))
    assert entropy.tolist() == pytest.approx([0.0, math.log(1000), math.log(500)], abs=1e-5)
    assert log_probs[0].tolist() == [0.0, -math.inf]
    assert log_probs[2, 1] == -math.inf


def test_a_common_shift_of_the_logits_changes_nothing():
    shifted = random_logits(1).float() + 1e4
    ids = student_topk(shifted, torch.arange(9), 5)
    _, entropy = target_statistics(shifted, torch.arange(9), ids)
    _, expected = target_statistics(shifted.double(), torch.arange(9), ids)
    torch.testing.assert_close(entropy.double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("given", "returned"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
)
def test_dtypes(given, returned):
    logits = random_logits(2, vocabulary=5000).to(given)
    ids, log_probs, entropy = topk_targets(logits, torch.arange(9), 7, chunk_size=4)
    assert (ids.dtype, log_probs.dtype, entropy.dtype) == (torch.int64, returned, returned)
    # The mathematics is not done in half precision: the only error is the rounding of the logits that came in.
    _, exact = target_statistics(logits.double(), torch.arange(9), ids)
    torch.testing.assert_close(entropy.double(), exact, rtol=0, atol=1e-5)


def test_targets_are_constants():
    logits = random_logits(3).requires_grad_(True)
    before = logits.detach().clone()
    _, log_probs, entropy = topk_targets(logits, torch.arange(9), 3)
    assert not log_probs.requires_grad
    assert not entropy.requires_grad
    assert torch.equal(logits.detach(), before), "the logits are not overwritten"


def test_no_rows():
    none = torch.empty(0, dtype=torch.int64)
    ids, log_probs, entropy = topk_targets(random_logits(0), none, 4)
    assert (ids.shape, log_probs.shape, entropy.shape) == ((0, 4), (0, 4), (0,))
    assert student_topk(random_logits(0), none, 4).shape == (0, 4)


@pytest.mark.parametrize("k", [0, 24])
def test_k_must_fit_the_vocabulary(k):
    logits, rows = random_logits(0), torch.arange(2)
    for call in (
        lambda: student_topk(logits, rows, k),
        lambda: topk_targets(logits, rows, k),
        lambda: target_statistics(logits, rows, torch.zeros(2, k, dtype=torch.int64)),
    ):
        with pytest.raises(ValueError, match="K must lie between 1 and the vocabulary size 23"):
            call()


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="topk_ids must be"):
        target_statistics(random_logits(0), torch.arange(2), torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="float tensor"):
        student_topk(torch.zeros(3, 4, dtype=torch.int64), torch.arange(2), 2)


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_trust_region_is_a_geometric_mean(seed, mix):
    reference, student = random_logits(seed), random_logits(seed + 1)
    blended = trust_region_logits(reference, student, mix=mix).log_softmax(-1)
    product = (1 - mix) * reference.log_softmax(-1) + mix * student.log_softmax(-1)
    torch.testing.assert_close(blended, product.log_softmax(-1), rtol=0, atol=1e-12)


def test_trust_region_ends_and_masked_tokens():
    reference = torch.tensor([1.0, -math.inf, 0.0])
    student = torch.tensor([2.0, 0.0, -math.inf], requires_grad=True)
    assert torch.equal(trust_region_logits(reference, student, mix=0.0), reference)
    assert torch.equal(trust_region_logits(reference, student, mix=1.0), student.detach())
    blended = trust_region_logits(reference, student, mix=0.25)
    assert blended.tolist() == [1.25, -math.inf, -math.inf]
    assert not blended.requires_grad


def test_trust_region_dtype_and_errors():
    one = torch.zeros(3)
    assert trust_region_logits(one.bfloat16(), one, mix=0.0).dtype == torch.float32
    with pytest.raises(ValueError, match="mix"):
        trust_region_logits(one, one, mix=1.5)
    with pytest.raises(ValueError, match="same shape"):
        trust_region_logits(one, torch.zeros(4), mix=0.5)
