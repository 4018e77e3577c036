"""A float32 weight in three bytes: how exact it is, and that an exponential mean in it goes on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srpo_verl.core import join, split

FINITE = st.floats(width=32, min_value=-(2.0**127), max_value=2.0**127)


@given(st.lists(FINITE, min_size=1, max_size=40))
def test_the_first_part_is_the_nearest_bfloat16_and_both_are_the_number_to_15_bits(numbers):
    values = torch.tensor(numbers, dtype=torch.float32)
    nearest, rest = split(values)
    assert torch.equal(nearest, values.to(torch.bfloat16))
    # Below 2^-126 a number has fewer bits; half a unit of the 16th place of the smallest normal one is 2^-142.
    error = (join(nearest, rest).double() - values.double()).abs()
    assert bool((error <= values.double().abs() * 2.0**-15 + 2.0**-142).all())


@pytest.mark.parametrize("power", [-3, 0, 5])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_on_both_sides_of_a_power_of_two(power, sign):
    """There the nearest bfloat16 has another exponent than the number, and a place of another size."""
    below = torch.tensor([sign * 2.0**power * (1 - 2.0**-k) for k in (9, 10, 12, 16, 23)], dtype=torch.float32)
    found = join(*split(below))
    torch.testing.assert_close(found, below, rtol=2.0**-16, atol=0)
    assert bool((split(below)[0].float().abs() >= below.abs()).all())


def test_zeros_and_shapes_are_kept():
    values = torch.tensor([[0.0, -0.0, 1.5], [-2.0, 0.25, 3.0]])
    nearest, rest = split(values)
    assert nearest.shape == rest.shape == values.shape
    assert torch.equal(join(nearest, rest).view(torch.int32), values.view(torch.int32))
    assert not rest.any()


def test_what_is_not_contiguous_is_split_alike():
    values = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    for one, other in zip(split(values.T), split(values), strict=True):
        assert torch.equal(one, other.T)
    assert torch.equal(join(*split(values.T)), join(*split(values)).T)


@pytest.mark.parametrize(("rate", "bound"), [(1e-6, 0.04), (1e-5, 0.004)])
def test_an_exponential_mean_goes_on_where_one_in_bfloat16_stands_still(rate, bound):
    """300 steps of about `rate` on weights of about 0.02; errors as a share of the way that the mean has gone."""
    generator = torch.Generator().manual_seed(0)
    actor = 0.02 * torch.randn(20_000, generator=generator, dtype=torch.float64)
    first, exact, direction = actor.clone(), actor.clone(), torch.zeros_like(actor)
    nearest, rest = split(actor.float())
    alone = nearest.clone()
    for _ in range(300):
        # As Adam's steps are: of one size, each much like the one before.
        direction = 0.9 * direction + 0.44 * torch.randn(20_000, generator=generator, dtype=torch.float64)
        actor = actor + rate * direction
        exact.lerp_(actor, 0.05)
        nearest, rest = split(join(nearest, rest).lerp_(actor.float(), 0.05))
        alone = alone.float().lerp_(actor.float(), 0.05).to(torch.bfloat16)
    way = (exact - first).norm()
    assert (join(nearest, rest) - exact).norm() < bound * way
    assert (alone - exact).norm() > 20 * bound * way


def test_other_dtypes_and_shapes_are_refused():
    with pytest.raises(ValueError, match=r"only float32 numbers are split, not torch\.float64"):
        split(torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"not torch\.float16 .* and torch\.int8"):
        join(torch.zeros(3, dtype=torch.float16), torch.zeros(3, dtype=torch.int8))
    with pytest.raises(ValueError, match=r"\(3,\) and torch\.int8 \(4,\)"):
        join(torch.zeros(3, dtype=torch.bfloat16), torch.zeros(4, dtype=torch.int8))
