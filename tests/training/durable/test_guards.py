"""The guards, on series of metrics made by hand: what stops, what warns, what never stops a healthy run."""

import json
import logging
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srpo_verl.config import settings as read_settings
from srpo_verl.training.durable.guards import Guards, format_rate, validation_accuracy
from tests.compose import compose

HEALTHY = {
    "actor/grad_norm": 0.5,
    "actor/lr": 1e-6,
    "actor/entropy": 0.8,
    "response_length/mean": 200.0,
    "srpo/accuracy": 0.5,
    "srpo/routed_share": 0.3,
    "srpo/groups/mixed": 0.6,
    "srpo/sdpo/format_ok": 0.9,
    "srpo/grpo/format_ok": 1.0,
    "srpo/teacher_distance": 1e-4,
    "srpo/routed_tokens": 500.0,
    "srpo/skipped_updates": 0.0,
}


def make(**guards) -> Guards:
    return Guards(read_settings({"guards": guards}))


def feed(guards: Guards, *series) -> tuple[int | None, str]:
    """Steps until the stop (None if there is none), and the sentence."""
    for number, changes in enumerate(series, 1):
        stop = guards.observe({**HEALTHY, **changes})
        if stop is not None:
            return number, stop.sentence
    return None, ""


BRANCHES = {"srpo/grad_norm/grpo": 0.5, "srpo/grad_norm/sdpo": 0.5}
SICK = {
    "nonfinite": {"actor/grad_norm": math.nan},
    "unrouted": {"srpo/routed_share": 0.0},
    "unmixed": {"srpo/groups/mixed": 0.0, "srpo/routed_share": 0.0},
    "idle_teacher": {"srpo/teacher_distance": 0.0},
    "branch_gradient": {**BRANCHES, "srpo/grpo/with_advantage": 0.5, "srpo/grad_norm/grpo": 0.0},
}


@pytest.mark.parametrize("guard", SICK)
def test_each_counts_warns_stops_and_can_be_switched_off(guard, caplog):
    assert feed(make(**{guard: 6}), *[SICK[guard]] * 5) == (None, "")
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        step, sentence = feed(make(**{guard: 6}), *[SICK[guard]] * 10)
    assert step == 6
    assert f"srpo.guards.{guard}=0" in sentence
    assert [record.getMessage().count(f"guard {guard}") for record in caplog.records if "guard" in record.message] == [
        1
    ]
    assert feed(make(**{guard: 0}), *[SICK[guard]] * 300)[0] is None
    # In a row: one good step starts the count again.
    good = BRANCHES if guard == "branch_gradient" else {}
    assert feed(make(**{guard: 6}), *([SICK[guard]] * 5 + [good]) * 4)[0] is None


def test_a_stop_for_nonfinite_gradients_trusts_no_weights():
    guards = make(nonfinite=1)
    assert not guards.observe({**HEALTHY, "actor/grad_norm": math.inf, "srpo/skipped_updates": 4.0}).weights_are_sound
    metrics = {**HEALTHY, "srpo/groups/mixed": 0.0, "srpo/routed_share": 0.0}
    assert make(unmixed=1).observe(metrics).weights_are_sound
    assert guards.skipped == 4


@pytest.mark.parametrize(
    ("guard", "symptom"),
    [
        ("format", {"srpo/sdpo/format_ok": 0.1, "srpo/grpo/format_ok": 0.1}),
        ("entropy", {"actor/entropy": 0.01}),
        ("entropy", {"actor/entropy": 9.0}),
        ("length", {"response_length/mean": 2.0}),
        ("length", {"response_length/mean": 4000.0}),
    ],
)
def test_a_symptom_stops_only_while_accuracy_is_lost(guard, symptom):
    limits = {guard: 10, "window": 5}
    healthy = [{}] * 10
    assert feed(make(**limits), *healthy, *[symptom] * 200)[0] is None
    assert feed(make(**limits), *healthy, *[{"srpo/accuracy": 0.0}] * 200)[0] is None
    step, sentence = feed(make(**limits), *healthy, *[{**symptom, "srpo/accuracy": 0.05}] * 100)
    assert 20 <= step <= 30
    assert f"srpo.guards.{guard} stopped the run" in sentence


def validated(training: float, validation: float) -> dict[str, float]:
    return {
        "srpo/accuracy": training,
        "val-core/math/acc/mean@4": validation,
        "val-core/chem/acc/mean@4": validation,
        "val-core/chem/acc/best@4/mean": 1.0,
    }


def test_gap_of_training_and_validation():
    """Training rises, validation falls; a gap that was always there, or a validation that only stagnates, is fine."""
    sick = [validated(0.5, 0.5)] + [validated(0.5 + i / 20, 0.5 - i / 20) for i in range(1, 10)]
    step, sentence = feed(make(gap=3, window=1), *sick)
    assert step == 6
    assert "validation accuracy falls" in sentence
    assert feed(make(gap=3, window=1), *[validated(0.9, 0.3)] * 50)[0] is None
    assert feed(make(gap=3, window=1), *[validated(0.3 + i / 100, 0.3) for i in range(50)])[0] is None
    # Steps without a validation neither count nor start the count again.
    sparse = [step for row in sick for step in (row, {"srpo/accuracy": row["srpo/accuracy"]})]
    assert feed(make(gap=3, window=1), *sparse)[0] == 11


BIT = 1e-9
# Guard, the metric of its symptom, the value before, and the two sides of its threshold: held, and just not.
SYMPTOMS = [
    ("entropy", "actor/entropy", 0.8, 0.2, 0.2 + BIT),
    ("entropy", "actor/entropy", 0.8, 3.2, 3.2 - BIT),
    ("length", "response_length/mean", 200.0, 50.0, 50.0 + BIT),
    ("length", "response_length/mean", 200.0, 800.0, 800.0 - BIT),
    ("format", "srpo/grpo/format_ok", 0.8, 0.2, 0.2 + BIT),
]


@pytest.mark.parametrize(("guard", "metric", "before", "held", "just_not"), SYMPTOMS)
def test_a_symptom_holds_from_its_threshold_on(guard, metric, before, held, just_not):
    """A quarter, or four times, of the first (of format: the best); half of the best accuracy is lost."""

    def stops(symptom: float, accuracy: float) -> bool:
        limits = dict.fromkeys(("format", "entropy", "length"), 0) | {guard: 1, "window": 1}
        series = ({metric: before, "srpo/accuracy": 0.8}, {metric: symptom, "srpo/accuracy": accuracy})
        alone = {"srpo/routed_share": 0.0, "srpo/sdpo/format_ok": 0.0}
        return feed(make(**limits), *({**alone, **step} for step in series))[0] == 2

    assert stops(held, accuracy=0.4)
    assert not stops(just_not, accuracy=0.4)
    assert not stops(held, accuracy=0.4 + BIT)


@pytest.mark.parametrize(
    ("training", "validation", "stops"),
    [
        # From 0.5 and 0.5: the gap must grow by more than 0.2 while validation falls by more than 0.1.
        (0.5499, 0.35, False),
        (0.5501, 0.35, True),
        (1.0, 0.4001, False),
        (1.0, 0.3999, True),
    ],
)
def test_a_gap_holds_beyond_both_its_thresholds(training, validation, stops):
    series = (validated(0.5, 0.5), validated(training, validation))
    assert feed(make(gap=1, window=1), *series)[0] == (2 if stops else None)


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        # A solved task: teacher and actor do move on, every group is correct.
        ({"route": "none", "policy_gradient": "all"}, {"srpo/routed_share": 0.0}),
        ({"teacher": {"kind": "frozen"}}, {"srpo/teacher_distance": 0.0}),
        ({"teacher": {"ema_rate": 1.0}}, {"srpo/teacher_distance": 0.0}),
        ({}, {"actor/lr": 0.0, "srpo/teacher_distance": 0.0}),
        ({}, {"actor/grad_norm": 0.0, "srpo/teacher_distance": 0.0}),
        ({}, {"srpo/grad_norm/grpo": 0.0, "srpo/grad_norm/sdpo": 1.0, "srpo/grpo/with_advantage": 0.0}),
        ({}, {"srpo/grad_norm/sdpo": 0.0, "srpo/grad_norm/grpo": 1.0, "srpo/routed_tokens": 0.0}),
    ],
)
def test_settings_under_which_a_zero_is_right(config, changes):
    guards = Guards(read_settings(config))
    assert feed(guards, *[changes] * 300)[0] is None


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.9), st.floats(-0.3, 0.6), st.floats(0.995, 1.002))
def test_the_defaults_never_stop_a_run_that_learns(seed, start, gain, drift):
    """400 steps: accuracy from `start` with noise and a slow trend, entropy and length drifting, sparse validations."""
    rng, guards = random.Random(seed), make()
    for step in range(400):
        accuracy = min(1.0, max(0.0, start + max(gain, -start / 3) * step / 400 + rng.gauss(0, 0.05)))
        metrics = {
            **HEALTHY,
            "actor/grad_norm": rng.lognormvariate(0, 1),
            "actor/entropy": 0.8 * drift**step,
            "response_length/mean": 200 / drift**step,
            "srpo/accuracy": accuracy,
            "srpo/groups/mixed": rng.choice([0.0, 0.1, 0.5]),
            "srpo/routed_share": rng.choice([0.0, 0.1]),
        }
        if step % 10 == 0:
            metrics["val-core/x/acc/mean@16"] = min(1.0, max(0.0, accuracy - 0.1 + rng.gauss(0, 0.03)))
        assert guards.observe(metrics) is None, step


@given(
    st.lists(st.sampled_from([*SICK.values(), {}, validated(0.9, 0.1), validated(0.2, 0.8)]), max_size=40), st.data()
)
def test_saved_and_loaded_guards_go_on_as_if_nothing_happened(series, data):
    cut = data.draw(st.integers(0, len(series)))
    through, before = make(window=3), make(window=3)
    for changes in series[:cut]:
        through.observe({**HEALTHY, **changes})
        before.observe({**HEALTHY, **changes})
    after = make(window=3)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    for changes in series[cut:]:
        one, other = {**HEALTHY, **changes}, {**HEALTHY, **changes}
        assert through.observe(one) == after.observe(other)
        assert {k: v for k, v in one.items() if "guards" in k} == {k: v for k, v in other.items() if "guards" in k}
    assert through.state_dict() == after.state_dict()


def test_rates_read_from_the_metrics():
    assert format_rate({"srpo/routed_share": 0.25, "srpo/sdpo/format_ok": 0.0, "srpo/grpo/format_ok": 1.0}) == 0.75
    assert format_rate({"srpo/routed_share": 0.25}) is None
    assert validation_accuracy(validated(0, 0.25)) == 0.25
    assert validation_accuracy({"val-core/x/reward/mean@16": 0.5}) == 0.5
    assert validation_accuracy({"val-aux/x/acc/mean@16": 0.5}) is None


# What a healthy run of each may log for as long as it likes.
OF_METHODS = {
    "rlsd": {"srpo/routed_share": 0.0, "srpo/routed_tokens": 0.0},  # asks its teacher, and distils nobody
    "rlrt": {"srpo/routed_share": 0.0, "srpo/routed_tokens": 0.0},
    "rlcsd": {"srpo/routed_share": 0.0, "srpo/routed_tokens": 0.0},
    "i_sdpo": {"srpo/routed_share": 0.0, "srpo/groups/all_wrong": 0.0},  # late: a right answer in every group
    "sdpg": {**BRANCHES, "srpo/grad_norm/sdpo": 0.0, "srpo/coefficient": 0.0},  # after its schedule's end
    "grpo": {"srpo/routed_share": 0.0, "srpo/routed_tokens": 0.0},
}


@pytest.mark.parametrize("method", OF_METHODS)
def test_no_guard_ends_a_healthy_run_of_another_method(method):
    guards = Guards(read_settings(compose(method).srpo))
    assert feed(guards, *[OF_METHODS[method]] * 400) == (None, "")


def test_groups_without_a_right_answer_are_who_i_sdpo_routes():
    guards = Guards(read_settings(compose("i_sdpo").srpo))
    step, sentence = feed(guards, *[{"srpo/routed_share": 0.0, "srpo/groups/all_wrong": 0.4}] * 400)
    assert step == 100
    assert "unrouted" in sentence
