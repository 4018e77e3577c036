"""What a run keeps from step to step: through a checkpoint bit by bit, and checked where a stranger makes it."""

import numpy as np
import pytest
import torch

from srpo_verl import register
from srpo_verl.config import settings
from srpo_verl.training.durable.run_states import FILE, load_states, next_states, question_id, save_states
from srpo_verl.training.step.routing_plan import Rollout, build_plan
from srpo_verl.variants import VariantError

DRIFT = settings(
    {
        "route": "difficulty",
        "asked": "correct",
        "providers": ["sibling", "past_answer"],
        "states": ["past_answers", "pass_rates"],
        "modulator": "rebellious",
    }
)


def plan_of(step, states, srpo=DRIFT):
    """Two questions that are asked in every third step, four answers each; verdicts by a generator of their own."""
    scores = torch.rand(8, generator=torch.Generator().manual_seed(step)).round().tolist()
    batch = [
        Rollout(
            f"{step}-{n // 4}_{n % 4}_0",
            scores[n] if n < 4 else 0.0 if step > 3 else scores[n],
            4,
            response=f"<|im_end|> é {step} {n}",
            question=f"q{step % 3}-{n // 4}",
        )
        for n in range(8)
    ]
    return build_plan(batch, srpo, step=step, states=states)


def run(states, first, last):
    plans = []
    for step in range(first, last + 1):
        plan = plan_of(step, states)
        states = next_states(states, plan.routing.seen, DRIFT)
        plans.append(plan)
    return states, plans


def test_a_resumed_run_routes_as_one_that_was_never_interrupted(tmp_path):
    states, _ = run({}, 1, 5)
    save_states(tmp_path, states)
    resumed = load_states(tmp_path, DRIFT)
    assert resumed == states
    assert [list(value) for value in resumed.values()] == [list(value) for value in states.values()]
    ends = [run(begin, 6, 12) for begin in (states, resumed)]
    assert ends[0][0] == ends[1][0]
    shown = []
    for one, other in zip(ends[0][1], ends[1][1], strict=True):
        assert torch.equal(one.routing.share, other.routing.share)
        assert torch.equal(one.routing.demonstration, other.routing.demonstration)
        assert one.routing.texts == other.routing.texts
        shown += [text for text in one.routing.texts if text is not None]
    assert shown, "an answer of an earlier step was shown where no sibling was right"


def test_what_was_not_saved_begins_empty(tmp_path):
    assert load_states(tmp_path, DRIFT) == {}
    save_states(tmp_path, {})
    assert not (tmp_path / FILE).exists()
    save_states(tmp_path, {"pass_rates": {"q": [1.0, 0.0, 1]}, "gone": {}})
    assert load_states(tmp_path, DRIFT) == {"pass_rates": {"q": [1.0, 0.0, 1]}}


def test_a_question_has_one_name_in_whatever_form_it_comes():
    messages = [{"role": "user", "content": "2 + 2?"}]
    assert question_id(messages) == question_id(np.array(messages, dtype=object))
    assert question_id(messages) != question_id([{"role": "user", "content": "2 + 3?"}])


@pytest.mark.parametrize(
    "after",
    [
        lambda state: None,
        lambda state: {1: "a"},
        lambda state: {"a": (1, 2)},
        lambda state: {"a": torch.zeros(1)},
        lambda state: {"a": float("nan")},
    ],
)
def test_a_state_that_a_checkpoint_could_not_hold_is_refused(after, request):
    name = f"hostile state {request.node.name}"
    register.state(name)(lambda state, rollouts, srpo: after(state))
    srpo = settings({"states": [name]})
    with pytest.raises(VariantError, match="hostile state"):
        next_states({}, plan_of(1, {}, srpo).routing.seen, srpo)


def test_a_stranger_cannot_change_what_others_see(request):
    name = f"vandal of {request.node.name}"

    def vandal(rollouts, available, srpo):
        for state in rollouts.states.values():
            state.clear()
        return ~rollouts.correct

    register.route(name)(vandal)
    states = {"past_answers": {"q1-0": ["kept"]}, "pass_rates": {}}
    build_plan([Rollout("x_0_0", 0.0, 3, question="q1-0")], settings({"route": name}), states=states)
    assert states["past_answers"] == {"q1-0": ["kept"]}
