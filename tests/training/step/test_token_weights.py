"""Weights over a whole batch, and the advantage mix."""

from types import SimpleNamespace

import pytest
import torch

from srpo_verl.training.step.token_weights import mixed_advantages, token_weights


def teacher(**rows):
    entropy = [torch.tensor(values) for values in rows.values()]
    return SimpleNamespace(rows=[int(name[1:]) for name in rows], entropy=entropy, log_probs=None)


def test_values_of_three_tokens():
    """H = (.1, .5, 1.2) with beta 1 gives (1.497610, 1.003878, 0.498511)."""
    masks = [torch.ones(2), torch.ones(1), torch.ones(1)]
    weights, entropy_weights = token_weights(teacher(r0=[0.1, 0.5], r2=[1.2]), masks, None, beta=1.0)
    expected = torch.tensor([1.497610, 1.003878, 0.498511])
    torch.testing.assert_close(entropy_weights, expected, atol=1e-6, rtol=0)
    assert [row.numel() for row in weights] == [2, 0, 1]
    torch.testing.assert_close(torch.cat(weights), expected, atol=1e-6, rtol=0)


def test_masked_tokens_have_no_weight_and_do_not_enter_the_mean():
    masks = [torch.tensor([1.0, 0.0, 1.0])]
    weights, _ = token_weights(teacher(r0=[0.3, 5.0, 0.3]), masks, None, beta=1.0)
    assert weights[0].tolist() == pytest.approx([1.0, 0.0, 1.0])


def test_importance_weights_multiply():
    importance = [torch.tensor([2.0, 0.5])]
    weights, alone = token_weights(teacher(r0=[0.3, 0.3]), [torch.ones(2)], importance, beta=1.0)
    assert weights[0].tolist() == pytest.approx([2.0, 0.5])
    assert alone.tolist() == pytest.approx([1.0, 1.0])


def test_advantage_mix_by_hand():
    answers = SimpleNamespace(rows=[1], entropy=[torch.zeros(2)], log_probs=[torch.tensor([[-0.5], [-1.0]])])
    mixed = mixed_advantages(
        [torch.tensor([0.5, 0.5]), torch.tensor([-0.5, -0.5])],
        [torch.ones(2), torch.tensor([1.0, 0.0])],
        [torch.tensor([-1.0, -1.0]), torch.tensor([-2.0, -2.0])],
        answers,
        mix=0.1,
    )
    assert mixed[0].tolist() == pytest.approx([0.45, 0.45])
    assert mixed[1].tolist() == pytest.approx([-0.45 + 0.15, -0.45])
