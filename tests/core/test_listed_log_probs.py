"""Log-probs of labels and listed ids with one gradient, against log_softmax and autograd in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srpo_verl.core import Selection, listed_log_probs, topk_divergence
from tests.core.peak_memory import peak_bytes

TOKENS, VOCABULARY = 9, 40


def example(seed, *, k=5, ties=False, masked=False, dtype=torch.float64):
    """Logits and a selection in which some labels are among the ids of their rows."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(TOKENS, VOCABULARY, generator=generator, dtype=torch.float64)
    if ties:
        logits = logits.round()
    rows = torch.randperm(TOKENS, generator=generator)[:5].sort().values
    if masked:
        logits[rows, 3] = logits[:, 17] = -torch.inf
    logits = logits.to(dtype)
    ids = logits[rows].topk(k).indices
    labels = logits.topk(2).indices[:, 1]
    labels[rows[0]], labels[rows[1]] = ids[0, 0], ids[1, -1]
    return logits, Selection(labels, rows, ids)


def slopes(seed):
    generator = torch.Generator().manual_seed(seed + 1000)
    return [torch.randn(count, generator=generator, dtype=torch.float64) for count in (TOKENS, 5, TOKENS)]


def plain(logits, selection, *, entropy):
    """The same by log_softmax; the gradient of the loss below by autograd, in float64."""
    leaf = logits.double().clone().requires_grad_()
    log_p = leaf.log_softmax(-1)
    at_labels = log_p.gather(-1, selection.labels[:, None]).squeeze(-1)
    listed = log_p[selection.rows[:, None], selection.ids]
    finite = torch.where(log_p.isfinite(), log_p, 0.0)
    entropies = -(log_p.exp() * finite).sum(-1)
    values = at_labels, listed, entropies if entropy else entropies[:0]
    loss(*values, seed=0).backward()
    return values, leaf.grad.nan_to_num()


def loss(at_labels, listed, entropies, *, seed):
    """Not linear, so that slopes differ; the weight of a listed id of probability zero is zero."""
    by_label, by_row, by_entropy = (value.to(at_labels.dtype) for value in slopes(seed))
    total = (by_label * at_labels.exp()).sum() + (by_row[:, None] * listed.exp() * listed.clamp(min=-50)).sum()
    return total + (by_entropy * entropies).sum() if len(entropies) else total


def ours(logits, selection, *, entropy=False, overwrite=False, chunk_size=2):
    leaf = logits.clone().requires_grad_()
    # Not the leaf itself: as in a model, whose logits are an output.
    found = listed_log_probs(
        (leaf * 1)[None], selection, with_entropy=entropy, overwrite=overwrite, chunk_size=chunk_size
    )
    values = found.labels, found.listed, found.entropy
    loss(*values, seed=0).backward()
    return values, leaf.grad


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("entropy", [False, True])
@given(st.integers(0, 10_000), st.booleans(), st.booleans(), st.sampled_from([1, 5, VOCABULARY]))
def test_values_and_gradient_equal_autograd(overwrite, entropy, seed, ties, masked, k):
    logits, selection = example(seed, k=k, ties=ties, masked=masked)
    expected, gradient = plain(logits, selection, entropy=entropy)
    found, ours_gradient = ours(logits, selection, entropy=entropy, overwrite=overwrite)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(ours_gradient, gradient, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 2.0**-8)])
def test_narrower_logits(dtype, bound, overwrite):
    """Values are float32 and exact for the logits as they are; the gradient is rounded once to their dtype."""
    logits, selection = example(3, dtype=dtype)
    expected, gradient = plain(logits, selection, entropy=True)
    found, ours_gradient = ours(logits, selection, entropy=True, overwrite=overwrite)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double(), other, atol=1e-5, rtol=1e-5)
    assert ours_gradient.dtype == dtype
    torch.testing.assert_close(ours_gradient.double(), gradient, atol=1e-6, rtol=bound)


def test_sure_tokens_keep_their_log_probs():
    """log p of about -1e-6 beside logits of 80: their difference to log Z would be off by more than itself."""
    logits = torch.full((1, 12), 66.0)
    logits[0, 4] = 80.0
    nothing = torch.zeros(0, dtype=torch.int64), torch.zeros(0, 1, dtype=torch.int64)
    found = listed_log_probs(logits, Selection(torch.tensor([4]), *nothing))
    exact = logits.double().log_softmax(-1)[0, 4]
    assert float(found.labels) == pytest.approx(float(exact), rel=2e-2)


def test_nothing_listed_is_the_policy_loss_alone():
    logits, selection = example(1)
    empty = Selection(selection.labels, selection.rows[:0], selection.ids[:0])
    leaf = logits.clone().requires_grad_()
    listed_log_probs(leaf, empty).labels.sum().backward()
    expected = torch.nn.functional.one_hot(selection.labels, VOCABULARY) - logits.softmax(-1)
    torch.testing.assert_close(leaf.grad, expected, atol=1e-12, rtol=1e-12)


def test_a_divergence_of_them_equals_the_loss_on_logits():
    logits, selection = example(2)
    teacher = example(5)[0][selection.rows].log_softmax(-1).gather(-1, selection.ids)
    found, expected = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    topk_divergence(listed_log_probs(found, selection).listed, teacher).sum().backward()
    log_p = expected.log_softmax(-1)[selection.rows].gather(-1, selection.ids)
    topk_divergence(log_p, teacher).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad, atol=1e-10, rtol=1e-10)


def test_the_gradient_takes_the_place_of_the_logits_only_if_asked_and_if_the_graph_goes():
    logits, selection = example(4)
    for overwrite, retained in ((False, False), (True, True), (True, False)):
        leaf = logits.clone().requires_grad_()
        output = leaf * 1
        labels = listed_log_probs(output, selection, overwrite=overwrite).labels
        labels.sum().backward(retain_graph=retained)
        assert torch.equal(output.detach(), logits) != (overwrite and not retained)
        if retained:
            first = leaf.grad.clone()
            labels.sum().backward()
            torch.testing.assert_close(leaf.grad, 2 * first, atol=1e-12, rtol=1e-12)


def test_another_loss_that_needs_the_logits_does_not_read_what_was_written_over_them():
    logits, selection = example(4)
    output = logits.clone().requires_grad_() * 1
    other = output.square().sum()
    (listed_log_probs(output, selection, overwrite=True).labels.sum()).backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        other.backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extra_memory_is_a_tenth_of_the_logits_at_most(dtype):
    rows, vocabulary, k = 1024, 20_000, 20
    logits = torch.randn(rows, vocabulary).to(dtype).requires_grad_()
    output = logits * 1
    listed_rows = torch.arange(0, rows, 2)
    ids = output.detach()[listed_rows].topk(k).indices
    selection = Selection(output.detach()[:, 0].abs().long(), listed_rows, ids)

    def step():
        found = listed_log_probs(output, selection, overwrite=True, chunk_size=16)
        (gradient,) = torch.autograd.grad(found.labels.sum() + found.listed.exp().sum(), output)
        assert gradient.data_ptr() == output.data_ptr()

    assert peak_bytes(step) < 0.1 * output.numel() * output.element_size()


def test_what_does_not_fit_is_refused():
    logits, selection = example(0)
    with pytest.raises(ValueError, match=r"labels must be int64 \(9,\)"):
        listed_log_probs(logits, Selection(selection.labels[:-1], selection.rows, selection.ids))
    with pytest.raises(ValueError, match="ids must be int64"):
        listed_log_probs(logits, Selection(selection.labels, selection.rows, selection.ids[1:]))
    with pytest.raises(ValueError, match="chunk_size"):
        listed_log_probs(logits, selection, chunk_size=0)
