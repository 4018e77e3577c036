"""Divergence on log-probs and on logits: reference values, properties, gradients, and what the backward pass reads."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srpo_verl.core import generalized_jsd, logit_divergence, student_topk, target_statistics, topk_divergence

STUDENT = torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=torch.float64).log_softmax(-1)
TEACHER = torch.tensor([0.5, 2.5, 0.0, -0.5], dtype=torch.float64).log_softmax(-1)
ALPHAS = [0.0, 0.3, 0.5, 1.0]


def full_kl(p, q):
    return (p.exp() * (p - q)).sum(-1)


def problem(seed=0, *, tokens=7, vocabulary=11, rows=(5, 0, 3, 6), k=4, dtype=torch.float64, scale=2.0):
    """Logits (T, V) with gradient, selected rows, the student's top k of each, teacher log-probs there."""
    generator = torch.Generator().manual_seed(seed)
    logits = (scale * torch.randn(tokens, vocabulary, generator=generator, dtype=torch.float64)).to(dtype)
    teacher = scale * torch.randn(len(rows), vocabulary, generator=generator, dtype=torch.float64)
    rows = torch.tensor(list(rows), dtype=torch.int64)
    ids = student_topk(logits, rows, k)
    log_probs, _ = target_statistics(teacher, torch.arange(len(rows)), ids)
    return logits.requires_grad_(True), rows, ids, log_probs


def by_autograd(logits, rows, ids, teacher, **options):
    """The same value as ordinary differentiable code."""
    student = logits[rows].double().log_softmax(-1).gather(-1, ids)
    return topk_divergence(student, teacher, **options)


@pytest.mark.parametrize(("alpha", "expected"), [(0.5, 0.185290), (0.0, 0.743618), (1.0, 0.888003)])
def test_reference_values(alpha, expected):
    assert topk_divergence(STUDENT[:2], TEACHER[:2], divergence=generalized_jsd(alpha)).item() == pytest.approx(
        expected, abs=1e-6
    )


def test_reference_values_from_logits():
    logits, row, ids = STUDENT[None] + 7.0, torch.tensor([0]), torch.tensor([[0, 1]])
    value = logit_divergence(logits, row, ids, TEACHER[None, :2])
    assert value.tolist() == pytest.approx([0.185290], abs=1e-6)


@pytest.mark.parametrize("add_tail", [True, False])
def test_full_vocabulary_reference(add_tail):
    """K = V: the tail is empty (clamped at 1e-7) and must not disturb the value."""
    value = topk_divergence(STUDENT, TEACHER, add_tail=add_tail)
    assert value.item() == pytest.approx(0.186043, abs=2e-6)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_ends_are_the_two_kl_divergences(alpha):
    expected = full_kl(STUDENT, TEACHER) if alpha == 1.0 else full_kl(TEACHER, STUDENT)
    value = topk_divergence(STUDENT, TEACHER, divergence=generalized_jsd(alpha), add_tail=False)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)


def test_general_alpha_against_the_formula():
    mixture = (0.7 * STUDENT.exp() + 0.3 * TEACHER.exp()).log()
    expected = 0.7 * full_kl(STUDENT, mixture) + 0.3 * full_kl(TEACHER, mixture)
    value = topk_divergence(STUDENT, TEACHER, divergence=generalized_jsd(0.3), add_tail=False)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)


def test_without_tail_both_sides_are_renormalised():
    expected = full_kl(STUDENT[:2].log_softmax(-1), TEACHER[:2].log_softmax(-1))
    value = topk_divergence(STUDENT[:2], TEACHER[:2], divergence=generalized_jsd(1.0), add_tail=False)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)


@given(st.integers(0, 10_000), st.sampled_from(ALPHAS), st.booleans(), st.integers(1, 6))
def test_not_negative_and_zero_only_for_equal_sides(seed, alpha, add_tail, k):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 6, generator=generator, dtype=torch.float64).mul(3).log_softmax(-1)[:, :k]
    value = topk_divergence(student, teacher, divergence=generalized_jsd(alpha), add_tail=add_tail).item()
    apart = k > 1 or add_tail  # one renormalised id: both sides are (1,)
    assert value > 1e-9 if apart else abs(value) < 1e-12
    assert topk_divergence(student, student, divergence=generalized_jsd(alpha), add_tail=add_tail).abs().item() < 1e-12


@given(st.integers(0, 10_000), st.sampled_from(ALPHAS))
def test_swapping_the_sides_mirrors_alpha(seed, alpha):
    """Symmetric for alpha = 0.5; KL(T || S) and KL(S || T) change places."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 3, 6, generator=generator, dtype=torch.float64).log_softmax(-1)[..., :4]
    one = topk_divergence(student, teacher, divergence=generalized_jsd(alpha))
    other = topk_divergence(teacher, student, divergence=generalized_jsd(1 - alpha))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_jensen_shannon_is_at_most_log_2():
    student = torch.tensor([[0.0, -900.0]], dtype=torch.float64)
    assert topk_divergence(student, student.flip(-1)).item() == pytest.approx(math.log(2), abs=1e-5)


def test_order_of_the_ids_does_not_matter():
    value = topk_divergence(STUDENT[:3], TEACHER[:3])
    torch.testing.assert_close(topk_divergence(STUDENT[[2, 0, 1]], TEACHER[[2, 0, 1]]), value, rtol=0, atol=1e-14)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("add_tail", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        pytest.param([0.0, -math.inf, -math.inf], [-1.0, -2.0, -3.0], id="student certain"),
        pytest.param([-1.0, -2.0, -3.0], [0.0, -math.inf, -math.inf], id="teacher certain"),
        pytest.param([0.0, -math.inf], [-math.inf, 0.0], id="disjoint"),
        pytest.param([-1.0, -2.0], [-math.inf, -math.inf], id="teacher elsewhere"),
        pytest.param([-math.inf, -math.inf], [-1.0, -2.0], id="student elsewhere"),
        pytest.param([-1e-9, -21.0], [-0.7, -0.7], id="tail of the student gone"),
        pytest.param([-0.7, -0.7], [1e-7, -30.0], id="mass above one by rounding"),
    ],
)
def test_degenerate_log_probs_give_numbers(alpha, add_tail, dtype, student, teacher):
    student = torch.tensor(student, dtype=dtype, requires_grad=True)
    value = topk_divergence(
        student, torch.tensor(teacher, dtype=dtype), divergence=generalized_jsd(alpha), add_tail=add_tail
    )
    (slope,) = torch.autograd.grad(value, student)
    assert torch.isfinite(value)
    assert torch.isfinite(slope).all()
    assert value.item() > -1e-5


def test_gradient_reaches_the_student_only():
    student, teacher = STUDENT[:2].clone().requires_grad_(True), TEACHER[:2].clone().requires_grad_(True)
    topk_divergence(student, teacher).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_following_the_gradient_of_the_tail_version_finds_the_teacher():
    """The tail holds the mass in place: without it, full-vocabulary KL stays large because mass leaves the support."""
    teacher = torch.tensor([[3.0, 2.0, 0.0, 0.0, -1.0]], dtype=torch.float64).log_softmax(-1)
    logits = torch.tensor([[0.0, 1.0, 4.0, 3.0, 1.0]], dtype=torch.float64, requires_grad=True)
    ids, rows = torch.tensor([[2, 3]]), torch.tensor([0])
    for _ in range(400):
        loss = logit_divergence(logits, rows, ids, teacher.gather(-1, ids)).sum()
        (slope,) = torch.autograd.grad(loss, logits)
        with torch.no_grad():
            logits -= 2.0 * slope
    torch.testing.assert_close(logits.log_softmax(-1)[:, 2:4].exp(), teacher[:, 2:4].exp(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("add_tail", [True, False])
@pytest.mark.parametrize("k", [1, 4, 11])
def test_gradcheck(alpha, add_tail, k):
    logits, rows, ids, teacher = problem(k=k)
    torch.autograd.gradcheck(
        lambda x: logit_divergence(
            x, rows, ids, teacher, divergence=generalized_jsd(alpha), add_tail=add_tail, chunk_size=3
        ),
        (logits,),
    )


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    alpha=st.sampled_from(ALPHAS),
    add_tail=st.booleans(),
    k=st.integers(1, 11),
    chunk_size=st.integers(1, 6),
)
def test_equals_ordinary_autograd_for_every_chunk_size(seed, alpha, add_tail, k, chunk_size):
    logits, rows, ids, teacher = problem(seed, k=k)
    factor = torch.randn(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    options = {"divergence": generalized_jsd(alpha), "add_tail": add_tail}
    expected = by_autograd(logits, rows, ids, teacher, **options)
    value = logit_divergence(logits, rows, ids, teacher, chunk_size=chunk_size, **options)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)
    slopes = [torch.autograd.grad((factor * v).sum(), logits)[0] for v in (value, expected)]
    torch.testing.assert_close(*slopes, rtol=0, atol=1e-12)
    assert torch.equal(slopes[0][[1, 2, 4]], torch.zeros(3, 11, dtype=torch.float64)), "rows that are not selected"


def slope_after(loss, logits, overwrite):
    """Gradient of `loss(logits)`, the memory of the logits being overwritten, unseen by autograd, before backward."""
    value = loss(logits).sum()
    if overwrite:
        logits.data.mul_(0.5).add_(1.0)
    return torch.autograd.grad(value, logits)[0]


def test_backward_does_not_read_the_logits():
    """As after flash-attn's cross-entropy with inplace_backward, which puts its own gradient into the logits."""
    slopes = []
    for overwrite in (False, True):
        logits, rows, ids, teacher = problem(rows=range(7))
        slopes.append(slope_after(lambda x: logit_divergence(x, rows, ids, teacher, chunk_size=2), logits, overwrite))  # noqa: B023
    torch.testing.assert_close(slopes[1], slopes[0], rtol=0, atol=0)


def test_the_hazard_is_real():
    """The same divergence through logsumexp, whose backward re-reads the logits, gets a wrong gradient in silence."""
    slopes = []
    for overwrite in (False, True):
        logits, _, ids, teacher = problem(rows=range(7))
        slopes.append(
            slope_after(
                lambda x: topk_divergence(x.gather(-1, ids) - x.logsumexp(-1, keepdim=True), teacher),  # noqa: B023
                logits,
                overwrite,
            )
        )
    assert (slopes[1] - slopes[0]).norm() > 0.1 * slopes[0].norm()


def test_saves_nothing_that_shares_memory_with_the_logits():
    logits, rows, ids, teacher = problem(rows=tuple(range(7)))
    saved = []

    def pack(tensor):
        saved.append(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logit_divergence(logits, rows, ids, teacher)
    assert saved
    assert logits.untyped_storage().data_ptr() not in saved


def test_logits_are_left_alone():
    logits, rows, ids, teacher = problem()
    before = logits.detach().clone()
    logit_divergence(logits, rows, ids, teacher).sum().backward()
    assert torch.equal(logits.detach(), before)


def test_used_twice():
    """Two terms on the same logits, and two backward passes through one term."""
    logits, rows, ids, teacher = problem()
    single = torch.autograd.grad(logit_divergence(logits, rows, ids, teacher).sum(), logits)[0]
    one, two = (logit_divergence(logits, rows, ids, teacher) for _ in range(2))
    both = (one + 2.0 * two).sum()
    for _ in range(2):
        (slope,) = torch.autograd.grad(both, logits, retain_graph=True)
        torch.testing.assert_close(slope, 3.0 * single, rtol=0, atol=1e-12)


def test_the_buffer_becomes_the_gradient():
    """All rows selected: no second (T, V) tensor is made, unless another backward pass may follow."""
    logits, rows, ids, teacher = problem(rows=range(7))
    saved = []

    def pack(tensor):
        saved.append((tensor.shape, tensor.data_ptr()))
        return tensor

    for retain in (True, False):
        saved.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            value = logit_divergence(logits, rows, ids, teacher).sum()
        (slope,) = torch.autograd.grad(value, logits, retain_graph=retain)
        assert ((torch.Size([7, 11]), slope.data_ptr()) in saved) == (not retain)


@pytest.mark.parametrize("rows", [(2, 3, 4), (0, 3, 5, 6)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_sparse_gradient_is_added_to_that_of_another_loss(rows, dtype):
    """As in verl's engine: the model puts out (1, T, V), and log-probs come from a view of it."""
    hidden = torch.randn(7, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)
    leaf, rows, ids, teacher = problem(rows=rows, dtype=dtype)
    head = torch.linalg.lstsq(hidden.double(), leaf.detach().double()).solution.to(dtype).requires_grad_(True)

    def slope(sparse):
        logits = (hidden @ head).unsqueeze(0) * 1.0
        log_probs = logits.squeeze(0).log_softmax(-1)[:, 0].sum()
        given = logits if sparse else logits.squeeze(0)
        value = logit_divergence(given, rows, ids, teacher, sparse_gradient=sparse).sum()
        return torch.autograd.grad(value + log_probs, head)[0]

    torch.testing.assert_close(slope(True), slope(False), rtol=0, atol=1e-12)


def test_listed_tokens_that_the_student_finds_impossible():
    """Their probabilities are no normal numbers, from which no log-prob could be read back."""
    logits = torch.zeros(2, 6)
    logits[:, 0] = 200.0
    logits.requires_grad_(True)
    ids, teacher = torch.tensor([[1, 2], [1, 2]]), torch.full((2, 2), 0.4).log()
    value = logit_divergence(logits, torch.arange(2), ids, teacher, divergence=generalized_jsd(0.0))
    expected = by_autograd(logits, torch.arange(2), ids, teacher, divergence=generalized_jsd(0.0))
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=0)
    slopes = [torch.autograd.grad(v.sum(), logits)[0] for v in (value, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-6)


def test_no_selected_row_is_a_differentiable_zero():
    logits, _, _, _ = problem()
    none = torch.empty(0, dtype=torch.int64)
    value = logit_divergence(logits, none, none.reshape(0, 4), torch.empty(0, 4))
    assert value.shape == (0,)
    assert value.requires_grad
    value.sum().backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_without_gradient_no_jacobian_is_made():
    logits, rows, ids, teacher = problem()
    expected = logit_divergence(logits, rows, ids, teacher)
    with torch.no_grad():
        value = logit_divergence(logits, rows, ids, teacher)
    assert not value.requires_grad
    torch.testing.assert_close(value, expected.detach(), rtol=0, atol=0)

    sizes = []
    original = torch.Tensor.new_empty

    def spy(self, size, *args, **kwargs):
        sizes.append(size)
        return original(self, size, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "new_empty", spy)
        logit_divergence(logits.detach(), rows, ids, teacher)
        with torch.no_grad():
            logit_divergence(logits, rows, ids, teacher)
        assert (4, 11) not in [tuple(s) if not isinstance(s, int) else (s,) for s in sizes]
        logit_divergence(logits, rows, ids, teacher)
        assert (4, 11) in [tuple(s) if not isinstance(s, int) else (s,) for s in sizes]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
def test_low_precision_logits(dtype, tolerance):
    """Mathematics in float32, gradient in the dtype of the logits."""
    logits, rows, ids, teacher = problem(dtype=dtype, vocabulary=300, k=20)
    value = logit_divergence(logits, rows, ids, teacher.float())
    expected = by_autograd(logits.detach().double(), rows, ids, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-5)
    (slope,) = torch.autograd.grad(value.sum(), logits)
    exact = logits.detach().double().requires_grad_(True)
    (reference,) = torch.autograd.grad(by_autograd(exact, rows, ids, teacher).sum(), exact)
    assert slope.dtype == dtype
    assert (slope.double() - reference).norm() < tolerance * reference.norm()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_masked_logits(alpha):
    """Tokens of probability zero, in student and teacher, listed or not."""
    logits, rows, ids, teacher = problem(k=5)
    with torch.no_grad():
        logits[5, ids[0, 1]] = -torch.inf
        logits[5, 10] = -torch.inf
        teacher[0, 2] = -torch.inf
    value = logit_divergence(logits, rows, ids, teacher, divergence=generalized_jsd(alpha))
    (slope,) = torch.autograd.grad(value.sum(), logits)
    assert torch.isfinite(value).all()
    assert torch.isfinite(slope).all()


def test_rows_of_the_gradient_sum_to_zero():
    """A constant added to a row of logits changes no probability."""
    logits, rows, ids, teacher = problem()
    logit_divergence(logits, rows, ids, teacher).sum().backward()
    torch.testing.assert_close(logits.grad.sum(-1), torch.zeros(7, dtype=torch.float64), rtol=0, atol=1e-14)
    assert logits.grad.abs().sum() > 0.1


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_must_be_a_share(alpha):
    with pytest.raises(ValueError, match="alpha"):
        generalized_jsd(alpha)


def test_shapes_that_do_not_fit_are_named():
    logits, rows, ids, teacher = problem()
    with pytest.raises(ValueError, match=r"same shape \(\.\.\., K\)"):
        topk_divergence(STUDENT, TEACHER[:2])
    with pytest.raises(ValueError, match="K is 0"):
        topk_divergence(STUDENT[:0], TEACHER[:0])
    with pytest.raises(ValueError, match=r"logits must be a float tensor \(T, V\)"):
        logit_divergence(logits[None, None], rows, ids, teacher)
    with pytest.raises(ValueError, match="rows must be int64"):
        logit_divergence(logits, rows.bool(), ids, teacher)
    with pytest.raises(ValueError, match="topk_ids must be"):
        logit_divergence(logits, rows, ids[:2], teacher)
    with pytest.raises(ValueError, match="teacher_log_probs"):
        logit_divergence(logits, rows, ids, teacher[:, :2])
    with pytest.raises(ValueError, match="chunk_size"):
        logit_divergence(logits, rows, ids, teacher, chunk_size=0)
