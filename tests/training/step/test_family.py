"""Each method of docs/family.md: loss and gradient of its config against its paper's formula, in float64."""

from __future__ import annotations

import random
from dataclasses import fields

import pytest
import torch

from srpo_verl.config import FAMILY, method_settings, settings
from tests.core.test_objective import VOCABULARY, gradient, random_batch
from tests.family_loss import loss_of, plan_of
from tests.naive_family import LOSSES, Batch, FamilyRollout
from tests.naive_objective import NaiveRollout

K = 5
PAST = {"q-mixed-0": [3.0, 1.0, 4], "q-mixed-1": [0.0, 6.0, 2], "q-all-wrong": [5.0, 5.0, 1]}


def family_batch(seed: int) -> list[FamilyRollout]:
    """The mixed batch of the other tests: a reference for most questions, and a teacher per wrong sibling."""
    generator, rng = torch.Generator().manual_seed(seed + 100), random.Random(seed)
    plain = sorted(random_batch(seed), key=lambda rollout: rollout.group)
    of_group = {group: None if group == "mixed-2" else f"so it is {group}" for group in {r.group for r in plain}}
    return [
        FamilyRollout(
            **{item.name: getattr(rollout, item.name) for item in fields(NaiveRollout)},
            reference=of_group[rollout.group],
            question=f"q-{rollout.group}",
            contrast={
                other: 2.0 * torch.randn(len(rollout.tokens), VOCABULARY, generator=generator, dtype=torch.float64)
                for other in rng.sample(range(len(plain)), len(plain))
            },
        )
        for rollout in plain
    ]


def settings_of(name):
    return settings({**method_settings(name), "topk": K})


def test_every_method_has_its_formula():
    assert LOSSES.keys() == FAMILY.keys()


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize(("seed", "step"), [(0, 5), (1, 70)])
def test_loss_and_gradient_equal_the_papers_formula(name, seed, step):
    rollouts, srpo = family_batch(seed), settings_of(name)
    states = {"pass_rates": PAST}
    plan = plan_of(rollouts, srpo, step=step, states=states)
    for row, rollout in enumerate(rollouts):
        # The formula leaves open which wrong siblings are drawn: those that were.
        drawn = [other for other in plan.routing.contrast[row].tolist() if other >= 0]
        pool = Batch(rollouts, K).wrong_siblings(row)
        assert set(drawn) <= set(pool)
        assert len(drawn) in (0, min(4, len(pool)))
        rollout.contrast = {other: rollout.contrast[other] for other in drawn}
    loss = loss_of(rollouts, srpo, step=step, states=states)
    expected = LOSSES[name](Batch(rollouts, K), step, PAST)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-10)
    found = gradient(loss, rollouts)
    torch.testing.assert_close(found, gradient(expected, rollouts), rtol=0, atol=1e-10)
    assert float(found.abs().max()) > 1e-4


def test_the_methods_are_different_gradients():
    """Otherwise the comparison above could not tell one method from another."""
    rollouts = family_batch(0)
    for rollout in rollouts:
        rollout.contrast = {other: rollout.contrast[other] for other in range(len(rollouts))}
    found = {}
    for name in [*FAMILY, "srpo", "sdpo", "grpo"]:
        found[name] = gradient(loss_of(rollouts, settings_of(name), step=2), rollouts)
    names = list(found)
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            assert float((found[one] - found[other]).abs().max()) > 1e-6, (one, other)
