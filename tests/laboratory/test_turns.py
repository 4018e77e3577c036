"""Rollouts of several turns: the objective of the package's own functions equals the naive one in float64.

Tool tokens inside responses, sessions of two outputs, an output in which the model wrote nothing.
"""

import pytest
import torch
from transformers import AutoModelForCausalLM

from laboratory.twin import Batch, Twin, gradient
from srpo_verl.config import settings
from srpo_verl.core import turn_numbers
from srpo_verl.training.step.routing_plan import Rollout, build_plan
from tests.compose import compose
from tests.training import naive_step, rows, tiny_model

# Key, score, and the mask of the response: 1 the model's tokens, 0 a tool's.
ROWS = [
    ("x_0_0", 0.0, [1, 1, 0, 0, 1]),
    ("x_1_0", 1.0, [1, 0, 0, 1, 1, 0, 1]),
    ("x_0_1", 0.0, [1, 0, 1, 1, 0, 0, 0, 1]),
    ("x_2_0", 1.0, [0, 0, 0]),
    ("x_2_1", 1.0, [1, 1, 0, 1]),
    ("x_3_0", 0.0, [0, 1, 1, 0]),
    ("y_0_0", 0.0, [0, 0]),
    ("y_1_0", 1.0, [1, 1]),
    ("z_0_0", 0.0, [1, 0, 1]),
    ("z_1_0", 0.0, [1, 1]),
]
# By hand: r - mean of the group's sessions; of x 1/2, of y 1/2, of z 0. Distilled: x_0 with its last output, x_3.
# y_0 has nothing that could be distilled. The first output of x_0 is trained by neither branch.
ROUTED = [2, 5]
REINFORCED = [1, 3, 4, 6, 7, 8, 9]
ADVANTAGES = [0.0, 0.5, 0.0, 0.5, 0.5, 0.0, -0.5, 0.5, 0.0, 0.0]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.build(tmp_path_factory.mktemp("model"))


def batch_of(srpo):
    rng = torch.Generator().manual_seed(0)

    def tokens(count):
        return torch.randint(3, 60, (count,), generator=rng)

    masks = [torch.tensor(mask) for *_, mask in ROWS]
    rollouts = [
        Rollout(key, score, len(mask), without_text=not any(mask), without_tokens=not any(mask))
        for key, score, mask in ROWS
    ]
    importance = [0.5 + 1.5 * torch.rand(len(mask), generator=rng) for mask in masks]
    return rows.Batch(
        plan=build_plan(rollouts, srpo),
        prompts=[tokens(4) for _ in ROWS],
        responses=[tokens(len(mask)) for mask in masks],
        masks=masks,
        teacher_prompts=[tokens(9) for _ in ROWS],
        importance=importance,
        advantages=[value * mask for value, mask in zip(ADVANTAGES, masks, strict=True)],
    )


def by_turns(batch):
    """Per row and token: T / (U n), by loops, over the tokens that one branch trains."""
    found = [torch.zeros(len(mask), dtype=torch.float64) for mask in batch.masks]
    for branch in (ROUTED, REINFORCED):
        places = {}
        for row in branch:
            turn = -1
            for t, own in enumerate(batch.masks[row].tolist()):
                turn += own and not (t and batch.masks[row][t - 1])
                if own:
                    places.setdefault((row, turn), []).append(t)
        total = sum(map(len, places.values()))
        for (row, _), stretch in places.items():
            for t in stretch:
                found[row][t] = total / (len(places) * len(stretch))
    return found


@pytest.mark.parametrize("turn_mean", [False, True])
def test_the_objective_equals_the_naive_one(model, turn_mean):
    config = compose("srpo", ["platform=cpu", "srpo.topk=8", "srpo.beta=0", f"srpo.turn_mean={turn_mean}"])
    if not turn_mean:
        config.srpo.beta = 1.0
    srpo = settings(config.srpo)
    batch = batch_of(srpo)
    assert batch.plan.routed_rows() == ROUTED
    twin = Twin(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64), config)
    found = gradient(
        twin,
        Batch(
            plan=batch.plan,
            prompts=batch.prompts,
            responses=batch.responses,
            masks=batch.masks,
            rewards=torch.tensor([score for _, score, _ in ROWS]),
            teacher_prompts=dict(enumerate(batch.teacher_prompts)),
            importance=batch.importance,
        ),
    )
    if turn_mean:
        # With beta 0 the weight of a token is that of its turn alone: a factor, as the importance weight is.
        batch.importance = [a * b for a, b in zip(batch.importance, by_turns(batch), strict=True)]
    student = naive_step.load(model)
    loss, _ = naive_step.loss(student, naive_step.load(model), batch, k=8, beta=srpo.beta)
    loss.backward()
    assert found["loss"] == pytest.approx(float(loss), abs=1e-7)
    expected = {name: parameter.grad for name, parameter in student.named_parameters()}
    scale = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        assert float((found["gradient"][name] - value).abs().max()) / scale < 1e-6, name


def test_what_the_tools_say_in_a_response_changes_nothing_but_what_follows(model):
    """No loss on tool tokens: with their log-probs set free, the gradient would see which they are."""
    config = compose("srpo", ["platform=cpu", "srpo.topk=8"])
    batch = batch_of(settings(config.srpo))
    # Tool tokens at the very end of a response are read by nobody.
    ends = [row for row, mask in enumerate(batch.masks) if not mask[-1] and mask.any()]
    assert ends == [5]
    losses = []
    for other in (3, 40):
        batch.responses[5][-1] = other
        twin = Twin(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64), config)
        rewards = torch.tensor([score for _, score, _ in ROWS])
        found = gradient(
            twin,
            Batch(
                batch.plan,
                batch.prompts,
                batch.responses,
                batch.masks,
                rewards,
                dict(enumerate(batch.teacher_prompts)),
                importance=batch.importance,
            ),
        )
        losses.append(found["loss"])
    assert losses[0] == losses[1]
    assert turn_numbers(batch.masks[2]).tolist() == [0, -1, 1, 1, -1, -1, -1, 2]
