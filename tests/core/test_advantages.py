"""Group-relative advantages, against reference values and a loop."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srpo_verl.core import group_advantages

REFERENCE = torch.tensor([1, 1, 0, 0, 0, 0, 0, 0], dtype=torch.float64)
BATCH = st.lists(
    st.tuples(st.floats(-5, 5, allow_subnormal=False), st.sampled_from("abc"), st.booleans()),
    max_size=20,
)


def unpack(batch):
    scores = torch.tensor([r[0] for r in batch], dtype=torch.float64)
    return scores, [r[1] for r in batch], torch.tensor([r[2] for r in batch], dtype=torch.bool)


def looped(scores, groups, exclude, normalize_by_std):
    result = []
    for i in range(len(groups)):
        everyone = [j for j in range(len(groups)) if groups[j] == groups[i]]
        kept = [j for j in everyone if not exclude[j]]
        if exclude[i] or (len(kept) == 1 and len(everyone) > 1):
            result.append(0.0)
            continue
        values = scores[kept]
        mean = values.mean() if len(kept) > 1 else 0.0
        std = values.std() if len(kept) > 1 else 1.0
        result.append(float((scores[i] - mean) / (std + 1e-6) if normalize_by_std else scores[i] - mean))
    return torch.tensor(result, dtype=torch.float64)


@pytest.mark.parametrize(("normalize", "expected"), [(False, (0.75, -0.25)), (True, (1.62018, -0.54006))])
def test_reference_values(normalize, expected):
    advantages = group_advantages(REFERENCE, ["x"] * 8, normalize_by_std=normalize)
    assert advantages[:2].tolist() == pytest.approx([expected[0]] * 2, abs=1e-5)
    assert advantages[2:].tolist() == pytest.approx([expected[1]] * 6, abs=1e-5)


@pytest.mark.parametrize("normalize", [False, True])
@given(batch=BATCH)
def test_against_a_loop(normalize, batch):
    scores, groups, exclude = unpack(batch)
    advantages = group_advantages(scores, groups, normalize_by_std=normalize, exclude=exclude)
    # Dividing by a standard deviation near zero amplifies rounding: compare what is multiplied by 1e6 loosely.
    torch.testing.assert_close(advantages, looped(scores, groups, exclude, normalize), rtol=1e-6, atol=1e-7)


@given(BATCH, st.randoms(use_true_random=False))
def test_moves_with_its_rollout(batch, rng):
    scores, groups, exclude = unpack(batch)
    before = group_advantages(scores, groups, exclude=exclude)
    order = list(range(len(batch)))
    rng.shuffle(order)
    after = group_advantages(scores[order], [groups[i] for i in order], exclude=exclude[order])
    torch.testing.assert_close(after, before[order], rtol=0, atol=1e-12)


@given(BATCH)
def test_sums_to_zero_in_every_group_of_several(batch):
    scores, groups, exclude = unpack(batch)
    advantages = group_advantages(scores, groups, exclude=exclude)
    for group in set(groups):
        members = [i for i, name in enumerate(groups) if name == group]
        if len(members) > 1:
            assert advantages[members].sum().item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -3.7])
@pytest.mark.parametrize("size", [2, 3, 7, 8])
def test_equal_scores_give_exactly_zero(normalize, value, size):
    scores = torch.full((size,), value, dtype=torch.float64)
    assert group_advantages(scores, ["x"] * size, normalize_by_std=normalize).tolist() == [0.0] * size


def test_excluded_rollouts_do_not_move_the_mean():
    scores = torch.tensor([1.0, 0.0, 100.0, float("nan")])
    exclude = torch.tensor([False, False, True, True])
    assert group_advantages(scores, ["x"] * 4, exclude=exclude).tolist() == [0.5, -0.5, 0.0, 0.0]


def test_a_lone_rollout_keeps_its_score_but_not_one_left_alone_by_exclusion():
    assert group_advantages(torch.tensor([0.75]), ["x"]).tolist() == [0.75]
    left = group_advantages(torch.tensor([0.75, 0.0]), ["x", "x"], exclude=torch.tensor([False, True]))
    assert left.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_keeps_the_dtype(dtype):
    advantages = group_advantages(REFERENCE.to(dtype), ["x"] * 8)
    assert advantages.dtype == dtype
    assert advantages[0].item() == 0.75


def test_integer_and_bool_scores_become_float():
    assert group_advantages(REFERENCE.bool(), ["x"] * 8).tolist() == [0.75] * 2 + [-0.25] * 6


@pytest.mark.parametrize(
    ("bad", "message"), [(float("nan"), "rollout 1 is NaN"), (float("inf"), "rollout 1 is infinite")]
)
def test_scores_must_be_numbers(bad, message):
    scores = torch.tensor([0.0, bad])
    with pytest.raises(ValueError, match=message):
        group_advantages(scores, ["x", "x"])
    assert group_advantages(scores, ["x", "x"], exclude=torch.tensor([False, True])).tolist() == [0.0, 0.0]


def test_equals_verl():
    """The `grpo` method must be plain verl: same values for groups of several sizes, one of them a lone rollout."""
    np = pytest.importorskip("numpy")
    core_algos = pytest.importorskip("verl.trainer.ppo.core_algos")
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(13, generator=generator)
    groups = np.array(["a"] * 4 + ["b"] * 8 + ["c"], dtype=object)
    for normalize in (False, True):
        expected, _ = core_algos.compute_grpo_outcome_advantage(
            scores[:, None].clone(), torch.ones(13, 1), groups, norm_adv_by_std_in_grpo=normalize
        )
        ours = group_advantages(scores, groups, normalize_by_std=normalize)
        torch.testing.assert_close(ours, expected[:, 0], rtol=1e-6, atol=1e-6)
