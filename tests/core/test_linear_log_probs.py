"""Log-probs without logits, against the logits that are built, in float64; blocks smaller than the example."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srpo_verl.core import linear_log_probs, topk_divergence
from tests.core.peak_memory import peak_bytes

TOKENS, HIDDEN, VOCABULARY = 11, 6, 30
BLOCKS = import_module(linear_log_probs.__module__)
REAL_BLOCK = BLOCKS._ROWS, BLOCKS._COLUMNS


@pytest.fixture(scope="module", autouse=True)
def _small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BLOCKS, "_ROWS", 4)
        patch.setattr(BLOCKS, "_COLUMNS", 7)
        yield


def example(seed, *, ties=False, ids=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = (
        torch.randn(count, HIDDEN, generator=generator, dtype=torch.float64) for count in (TOKENS, VOCABULARY)
    )
    if ties:
        hidden, weight = hidden.round(), weight.round()
    listed = torch.randint(0, VOCABULARY, (TOKENS, ids), generator=generator)
    return hidden.to(dtype), weight.to(dtype), listed


def loss(log_probs, entropy):
    """Not linear in either."""
    weights = torch.linspace(-1, 2, log_probs.numel(), dtype=log_probs.dtype).view_as(log_probs)
    return (weights * log_probs.exp()).sum() + (entropy.square() * torch.linspace(1, 2, len(entropy))).sum()


def plain(hidden, weight, ids, temperature=1.0):
    hidden, weight = hidden.double().clone().requires_grad_(), weight.double().clone().requires_grad_()
    logits = hidden @ weight.T / torch.as_tensor(temperature, dtype=torch.float64).reshape(-1, 1)
    log_p = logits.log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    loss(log_p.gather(-1, ids), entropy).backward()
    return log_p.detach(), entropy.detach(), hidden.grad, weight.grad


def ours(hidden, weight, ids, **options):
    hidden, weight = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    found = linear_log_probs(hidden, weight, ids, with_entropy=True, **options)
    loss(found.log_probs, found.entropy).backward()
    return found, hidden.grad, weight.grad


@given(
    st.integers(0, 10_000),
    st.booleans(),
    st.sampled_from([1.0, 0.7, torch.linspace(0.5, 1.5, TOKENS)]),
    st.sampled_from([1, 5, VOCABULARY]),
)
def test_values_and_gradients_equal_autograd(seed, ties, temperature, count):
    """An id may be listed twice, and all of them may be."""
    hidden, weight, ids = example(seed, ties=ties, ids=count)
    log_p, entropy, *gradients = plain(hidden, weight, ids, temperature)
    found, *ours_gradients = ours(hidden, weight, ids, temperature=temperature)
    torch.testing.assert_close(found.log_probs.detach(), log_p.gather(-1, ids), atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(found.entropy.detach(), entropy, atol=1e-10, rtol=1e-10)
    for one, other in zip(ours_gradients, gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_narrower_dtypes(dtype, bound):
    """In bfloat16 the logits themselves are rounded, as those that a model keeps are."""
    hidden, weight, ids = example(1, dtype=dtype)
    log_p, entropy, *gradients = plain(hidden, weight, ids)
    found, *ours_gradients = ours(hidden, weight, ids)
    assert found.log_probs.dtype == found.entropy.dtype == torch.float32
    pairs = [(found.log_probs.detach(), log_p.gather(-1, ids)), (found.entropy.detach(), entropy)]
    for one, other in [*pairs, *zip(ours_gradients, gradients, strict=True)]:
        assert float((one.double() - other).norm() / other.norm()) < bound
    assert ours_gradients[0].dtype == ours_gradients[1].dtype == dtype


@given(st.integers(0, 10_000), st.sampled_from([0, 1, 9, VOCABULARY]))
def test_the_top_k_over_blocks_is_that_of_the_whole(seed, k):
    hidden, weight, ids = example(seed)
    found = linear_log_probs(hidden, weight, ids, topk=k)
    expected = (hidden @ weight.T).log_softmax(-1).topk(k)
    assert torch.equal(found.topk_ids, expected.indices)
    torch.testing.assert_close(found.topk_log_probs, expected.values, atol=1e-12, rtol=1e-12)


def test_large_logits_stay_finite():
    hidden, weight, ids = example(2)
    log_p, entropy, *gradients = plain(300 * hidden, weight, ids)
    found, *ours_gradients = ours(300 * hidden, weight, ids)
    torch.testing.assert_close(found.log_probs.detach(), log_p.gather(-1, ids), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(found.entropy.detach(), entropy, atol=1e-9, rtol=1e-9)
    for one, other in zip(ours_gradients, gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def test_a_divergence_of_them_and_frozen_weights():
    """Weights that want no gradient get none, as with adapters elsewhere in the model."""
    hidden, weight, _ = example(3)
    teacher = torch.randn(TOKENS, VOCABULARY, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ids = (hidden @ weight.T).topk(4).indices
    teacher = teacher.log_softmax(-1).gather(-1, ids)
    found, expected = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    topk_divergence(linear_log_probs(found, weight, ids).log_probs, teacher).sum().backward()
    topk_divergence((expected @ weight.T).log_softmax(-1).gather(-1, ids), teacher).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad, atol=1e-10, rtol=1e-10)
    assert weight.grad is None


def test_extra_memory_is_a_few_blocks_whatever_the_rows_and_the_vocabulary(monkeypatch):
    """At 8,192 rows of 151,936 ids a block is 0.17 % of the logits."""
    monkeypatch.setattr(BLOCKS, "_ROWS", REAL_BLOCK[0])
    monkeypatch.setattr(BLOCKS, "_COLUMNS", REAL_BLOCK[1])
    tokens, hidden_size, vocabulary = 2048, 64, 40_000
    hidden = torch.randn(tokens, hidden_size).requires_grad_()
    weight = torch.randn(vocabulary, hidden_size).requires_grad_()
    ids = torch.randint(0, vocabulary, (tokens, 20))

    def step():
        found = linear_log_probs(hidden, weight, ids, with_entropy=True, topk=20)
        torch.autograd.grad((found.log_probs.sum() + found.entropy.sum()), (hidden, weight))

    gradients = (weight.numel() + hidden.numel()) * 4
    answers = 12 * tokens * 20 * 4
    assert peak_bytes(step) - gradients - answers < 4 * REAL_BLOCK[0] * REAL_BLOCK[1] * 4


def test_what_does_not_fit_is_refused():
    hidden, weight, ids = example(0)
    with pytest.raises(ValueError, match="of one dtype"):
        linear_log_probs(hidden.float(), weight, ids)
    with pytest.raises(ValueError, match="hidden states"):
        linear_log_probs(hidden[:, :-1], weight, ids)
    with pytest.raises(ValueError, match="ids must be int64"):
        linear_log_probs(hidden, weight, ids[:-1])
    with pytest.raises(ValueError, match="K = 31"):
        linear_log_probs(hidden, weight, ids, topk=31)
