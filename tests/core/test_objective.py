"""Composing the core functions gives the paper's objective, and splitting it into micro-batches does not change it."""

from __future__ import annotations

import random

import pytest
import torch

from srpo_verl.core import (
    RULES,
    entropy_weights,
    generalized_jsd,
    group_advantages,
    logit_divergence,
    route,
    student_topk,
    target_statistics,
)
from tests.naive_objective import NaiveRollout, naive_objective

VOCABULARY = 12


def random_batch(seed: int, *, groups: int = 4, size: int = 4) -> list[NaiveRollout]:
    """Shuffled rollouts: mixed groups, an all-correct, an all-wrong one, one with a single correct, a lone rollout.

    Of the mixed groups every third answer has nothing to read in it.
    """
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    verdicts = {"all-correct": [1.0] * size, "all-wrong": [0.0] * size, "one-correct": [1.0] + [0.0] * (size - 1)}
    verdicts |= {f"mixed-{g}": [float(rng.random() < 0.5) for _ in range(size)] for g in range(groups)}
    verdicts["lone"] = [1.0]
    verdicts["shaped"] = [0.1, 0.7, 0.49, 0.5]
    rollouts = []
    for group, rewards in verdicts.items():
        for place, reward in enumerate(rewards):
            length = rng.randint(1, 5)
            logits = 2.0 * torch.randn(length, VOCABULARY, generator=generator, dtype=torch.float64)
            tokens = [rng.randrange(VOCABULARY) for _ in range(length)]
            log_probs = logits.log_softmax(-1)[range(length), tokens]
            # Ratios from 0.2 to 7: inside the clip range, outside it on both sides, and beyond the dual clip.
            old = log_probs - torch.empty(length, dtype=torch.float64).uniform_(-1.6, 2.0, generator=generator)
            mask = [rng.random() < 0.85 for _ in range(length)]
            rollouts.append(
                NaiveRollout(
                    logits=logits.requires_grad_(True),
                    tokens=tokens,
                    old_log_probs=old.tolist(),
                    reward=reward,
                    group=group,
                    teacher_logits=3.0 * torch.randn(length, VOCABULARY, generator=generator, dtype=torch.float64),
                    tis=[rng.uniform(0.3, 3.5) for _ in range(length)],
                    mask=mask,
                    feedback=rng.choice([None, " ", "wrong unit"]) if group == "all-wrong" else None,
                    empty=group.startswith("mixed") and place % 3 == 0,
                )
            )
    rng.shuffle(rollouts)
    return rollouts


def composed_losses(
    rollouts: list[NaiveRollout],
    micro_batches: list[list[int]],
    *,
    alpha: float,
    beta: float,
    k: int,
    tail: bool,
    rows: str,
    normalize_by_std: bool,
    ratio_clip: float | None = None,
    distilled_only: bool = False,
) -> list[torch.Tensor]:
    """The loss of each micro-batch as a trainer would build it from the core; their sum is the batch's loss."""
    rewards = torch.tensor([r.reward for r in rollouts], dtype=torch.float64)
    groups = [r.group for r in rollouts]
    empty = torch.tensor([r.empty for r in rollouts])
    routing = route(rewards, groups, rule=RULES[rows], feedback=[r.feedback for r in rollouts], not_shown=empty)
    advantages = group_advantages(rewards, groups, normalize_by_std=normalize_by_std)
    advantages = torch.where(routing.to_sdpo, 0.0, advantages)

    # Driver: packed over the whole batch, so that denominator and weights are global.
    lengths = torch.tensor([len(r.tokens) for r in rollouts])
    rollout_of = torch.repeat_interleave(torch.arange(len(rollouts)), lengths)
    mask = torch.tensor([r.counts(t) for r in rollouts for t in range(len(r.tokens))])
    tis = torch.tensor([w for r in rollouts for w in r.tis], dtype=torch.float64).clamp(max=2.0)
    old = torch.tensor([p for r in rollouts for p in r.old_log_probs], dtype=torch.float64)
    tokens = torch.tensor([v for r in rollouts for v in r.tokens])
    teacher_logits = torch.cat([r.teacher_logits for r in rollouts])
    student_logits = torch.cat([r.logits for r in rollouts])
    distilled = routing.to_sdpo[rollout_of] & mask
    positions = distilled.nonzero()[:, 0]
    ids = student_topk(student_logits, positions, k, chunk_size=3)
    teacher, entropy = target_statistics(teacher_logits, positions, ids, chunk_size=2)
    weights = entropy_weights(entropy, torch.ones_like(entropy, dtype=torch.bool), beta=beta)
    slot = torch.full((len(tokens),), -1).index_put((positions,), torch.arange(len(positions)))

    losses = []
    for members in micro_batches:
        here = torch.isin(rollout_of, torch.tensor(members)).nonzero()[:, 0]
        logits = student_logits[here]
        log_probs = logits.log_softmax(-1).gather(-1, tokens[here, None])[:, 0]
        ratio = (log_probs - old[here]).exp()
        advantage = advantages[rollout_of[here]]
        surrogate = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.28))
        surrogate = torch.where(advantage < 0, torch.minimum(surrogate, -3.0 * advantage), surrogate)
        loss = (surrogate * tis[here] * mask[here]).sum()

        rows_here = distilled[here].nonzero()[:, 0]
        chosen = slot[here][rows_here]
        divergence = logit_divergence(
            logits,
            rows_here,
            ids[chosen],
            teacher[chosen],
            divergence=generalized_jsd(alpha),
            add_tail=tail,
            chunk_size=4,
        )
        factor = weights[chosen] * tis[here][rows_here]
        if ratio_clip is not None:
            factor = factor * ratio.detach()[rows_here].clamp(max=ratio_clip)
        distillation = (factor * divergence).sum()
        losses.append(
            distillation / max(int(distilled.sum()), 1) if distilled_only else (loss + distillation) / int(mask.sum())
        )
    return losses


def gradient(loss: torch.Tensor, rollouts: list[NaiveRollout]) -> torch.Tensor:
    leaves = [r.logits for r in rollouts]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, leaves, materialize_grads=True)])


SETTINGS = [
    pytest.param({}, id="srpo"),
    pytest.param({"alpha": 0.0, "beta": 0.0}, id="forward-kl-unweighted"),
    pytest.param({"alpha": 1.0, "beta": 2.5, "k": 3}, id="reverse-kl"),
    pytest.param({"alpha": 0.3, "tail": False}, id="no-tail"),
    pytest.param({"k": VOCABULARY}, id="full-vocabulary"),
    pytest.param({"k": 1}, id="one-token"),
    pytest.param({"rows": "all", "beta": 0.0}, id="sdpo"),
    pytest.param({"rows": "correct"}, id="sdpo-on-correct"),
    pytest.param({"rows": "none", "normalize_by_std": True}, id="grpo-with-std"),
    pytest.param({"ratio_clip": 2.0}, id="ratio-clip"),
    pytest.param({"rows": "all", "beta": 0.0, "distilled_only": True}, id="sdpo-of-its-own-tokens"),
]


def composed_and_naive(settings: dict, rollouts: list[NaiveRollout], micro_batches: list[list[int]]):
    options = {"alpha": 0.5, "beta": 1.0, "k": 5, "tail": True, "rows": "incorrect", "normalize_by_std": False}
    options |= settings
    losses = composed_losses(rollouts, micro_batches, **options)
    options["sdpo_ratio_clip"] = options.pop("ratio_clip", None)
    return losses, naive_objective(rollouts, **options)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("seed", range(3))
def test_loss_and_gradient_equal_the_naive_objective(settings, seed):
    rollouts = random_batch(seed)
    (loss,), naive = composed_and_naive(settings, rollouts, [list(range(len(rollouts)))])
    assert any(naive.routed) == (settings.get("rows") != "none")
    assert not all(naive.routed)
    torch.testing.assert_close(loss, naive.loss, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient(loss, rollouts), gradient(naive.loss, rollouts), rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_micro_batches_add_up_to_the_batch(size):
    rollouts = random_batch(17)
    order = list(range(len(rollouts)))
    random.Random(size).shuffle(order)
    micro_batches = [order[i : i + size] for i in range(0, len(order), size)]
    losses, naive = composed_and_naive({}, rollouts, micro_batches)
    # Micro-batches without a routed token and with nothing else are among them: the split is not a benign one.
    assert size > 1 or any(not naive.routed[members[0]] for members in micro_batches)
    torch.testing.assert_close(sum(losses), naive.loss, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient(sum(losses), rollouts), gradient(naive.loss, rollouts), rtol=0, atol=1e-10)


def test_averaging_micro_batch_means_is_a_different_objective():
    """The split above would go unnoticed if the micro-batches were interchangeable; they are not."""
    rollouts = random_batch(17)
    halves = [list(range(8)), list(range(8, len(rollouts)))]
    losses, naive = composed_and_naive({}, rollouts, halves)
    tokens = [sum(rollouts[i].counts(t) for i in half for t in range(len(rollouts[i].tokens))) for half in halves]
    means = [loss.item() * naive.tokens / count for loss, count in zip(losses, tokens, strict=True)]
    assert abs(sum(means) / 2 - naive.loss.item()) > 1e-3


def test_uniform_groups_add_nothing_but_their_tokens():
    rollouts = [r for r in random_batch(5) if r.group in ("all-correct", "one-correct")]
    with_uniform = naive_objective(rollouts)
    without = [r for r in rollouts if r.group == "one-correct"]
    alone = naive_objective(without)
    (loss,), _ = composed_and_naive({}, rollouts, [list(range(len(rollouts)))])
    assert with_uniform.tokens > alone.tokens
    (alone_loss,), _ = composed_and_naive({}, without, [list(range(len(without)))])
    torch.testing.assert_close(loss * with_uniform.tokens, alone_loss * alone.tokens, rtol=0, atol=1e-10)


def test_naive_objective_has_the_reference_values():
    """The yardstick itself, against values worked out by hand: rewards (1,1,0 x 6), one token each, vocabulary of 4."""
    student = torch.tensor([[2.0, 1.0, 0.0, -1.0]], dtype=torch.float64)
    teacher = torch.tensor([[0.5, 2.5, 0.0, -0.5]], dtype=torch.float64)
    old = student.log_softmax(-1)[0, 0].item()
    rollouts = [
        NaiveRollout(student.clone(), [0], [old], reward, "x", teacher) for reward in (1.0, 1.0, 0, 0, 0, 0, 0, 0)
    ]
    naive = naive_objective(rollouts, k=2)
    assert naive.advantages == [0.75, 0.75] + [-0.25] * 6
    assert naive.routed == [False, False] + [True] * 6
    assert naive.demonstration == [1, 0] + [0] * 6
    assert naive.entropies[2, 0] == pytest.approx(0.730219, abs=1e-6)
    assert float(naive.loss) == pytest.approx((2 * -0.75 + 6 * 0.185290) / 8, abs=1e-6)
