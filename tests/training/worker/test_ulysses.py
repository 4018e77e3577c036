"""Ulysses: two ranks that share each row, and two such pairs, against one rank that has all of it.

flash-attn's call is made by `packed_attention`; the all-to-all around it and all else is what a GPU runs.
"""

import pytest
import torch
from verl.utils.metric import reduce_metrics

from srpo_verl.config import SRPOConfig
from tests.training import packed_attention, scenarios, tiny_model
from tests.training.rows import make_batch
from tests.training.worker.test_worker_update import largest_difference
from tests.training.worker_process import run_ranks

KINDS = ("ema", "frozen", "live", "trust_region")
SETTINGS = {
    "ema, jsd": ["srpo.teacher.kind=ema"],
    "live, alpha 0": ["srpo.teacher.kind=live", "srpo.alpha=0"],
    "frozen, alpha 1, its own support": ["srpo.teacher.kind=frozen", "srpo.alpha=1", "srpo.support=teacher"],
    "trust_region, jsd": ["srpo.teacher.kind=trust_region"],
    "ema, no logits": ["srpo.fused_linear=true"],
}
ALL_SETTINGS = {
    f"{kind}, alpha {alpha}, {support}": [
        f"srpo.teacher.kind={kind}",
        f"srpo.alpha={alpha}",
        f"srpo.support={support}",
    ]
    for kind in KINDS
    for alpha in (0, 0.5, 1)
    for support in ("student", "teacher")
}
SIZE = "actor_rollout_ref.actor.ulysses_sequence_parallel_size"
# Four processes take longest.
OF_TWO_PAIRS = ("ema, jsd", "trust_region, jsd")
SP = 2
PADDING = 2
# The padding rows have 128 tokens. verl multiplies the budget by the ranks that share a row.
TOKENS = 160
CUTS = {
    "whole": {},
    "micro_batches_of_1": {"micro_batch_size_per_gpu": 1},
    "dynamic": {"use_dynamic_bsz": True},
}

pytestmark = pytest.mark.needs_cpu_set


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.build(tmp_path_factory.mktemp("model"))


def run(model, *, dp: int, sp: int, settings: dict[str, list[str]] = SETTINGS):
    """Results by setting. One rank that has everything takes torch's own attention."""
    split = [packed_attention.OVERRIDE, f"{SIZE}={sp}"]
    payload = {
        "settings": settings,
        "overrides": split if sp > 1 else [],
        "cuts": {name: {**cut, "max_token_len_per_gpu": TOKENS // sp} for name, cut in CUTS.items()},
        "batch": {"padding": PADDING},
    }
    return run_ranks(scenarios.over_settings, dp * sp, model, payload, prepare=packed_attention.install)


@pytest.fixture(scope="module")
def one_rank(model):
    return run(model, dp=1, sp=1)


@pytest.fixture(scope="module")
def two_ranks(model):
    return run(model, dp=1, sp=SP)


@pytest.fixture(scope="module")
def two_pairs(model):
    return run(model, dp=2, sp=SP, settings={name: SETTINGS[name] for name in OF_TWO_PAIRS})


def test_the_rows_have_every_kind_of_slice():
    """Row by row, as in micro-batches of one: where the halves of the packed tokens meet."""
    batch = make_batch(vocabulary=scenarios.VOCABULARY, srpo=SRPOConfig(topk=8), padding=PADDING)
    kinds = set()
    for row in batch.plan.routed_rows():
        prompt, response = batch.prompts[row].numel(), batch.responses[row].numel()
        half = -(-(prompt + response) // SP)
        places = range(prompt - 1, prompt + response - 1)
        kinds.add("cut" if places[0] < half <= places[-1] else "a slice without a routed token")
        if (prompt + response) % SP:
            kinds.add("padded")
        if not all(batch.masks[row]):
            kinds.add("masked")
    assert kinds == {"cut", "a slice without a routed token", "padded", "masked"}
    assert any(row not in batch.plan.routed_rows() for row in range(len(batch)))


def assert_same(found, expected) -> None:
    for name, rows in expected["fields"].items():
        for row, (one, other) in enumerate(zip(found["fields"][name], rows, strict=True)):
            if name == "topk_ids":
                assert torch.equal(one, other), (name, row)
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5, msg=f"{name} of row {row}")
    for name, cut in expected["cuts"].items():
        assert found["cuts"][name]["loss"] == pytest.approx(cut["loss"], abs=1e-5), name
        assert largest_difference(found["cuts"][name]["gradient"], cut["gradient"]) < 1e-5, name


@pytest.mark.parametrize("setting", SETTINGS)
def test_two_ranks_that_share_rows_equal_one(one_rank, two_ranks, setting):
    assert_same(two_ranks[setting], one_rank[setting])


@pytest.mark.parametrize("setting", OF_TWO_PAIRS)
def test_two_pairs_equal_one_rank(one_rank, two_pairs, setting):
    assert_same(two_pairs[setting], one_rank[setting])


def reduced(result) -> dict[str, float]:
    """The metrics as the trainer logs them, without those of the machine."""
    metrics = reduce_metrics(dict(result["metrics"]))
    return {name: value for name, value in metrics.items() if not name.startswith("perf/") and name != "mfu"}


@pytest.mark.parametrize("setting", SETTINGS)
def test_metrics_count_shared_rows_once(one_rank, two_ranks, setting):
    expected = reduced(one_rank[setting])
    assert expected["srpo/sdpo_loss"] > 0
    assert expected["srpo/divergence"] > 0
    assert reduced(two_ranks[setting]) == pytest.approx(expected, abs=1e-5, rel=1e-5)


@pytest.mark.parametrize("setting", OF_TWO_PAIRS)
def test_metrics_of_two_pairs(one_rank, two_pairs, setting):
    """But for means of verl's over the micro-batches, which are others with two parts of the batch."""

    def chosen(result):
        return {n: v for n, v in reduced(result).items() if n.startswith("srpo/") or n in ("loss", "grad_norm")}

    assert chosen(two_pairs[setting]) == pytest.approx(chosen(one_rank[setting]), abs=1e-5, rel=1e-5)


def test_a_gradient_of_nan_moves_no_part_of_the_teacher(model):
    """Only one of the two ranks has the output that tells of the norm."""
    payload, overrides = {"poisoned": (1, 2)}, [packed_attention.OVERRIDE, f"{SIZE}={SP}"]
    result = run_ranks(scenarios.nonfinite_gradient, SP, model, payload, overrides, prepare=packed_attention.install)
    assert result["metrics"]["srpo/skipped_updates"] == 2
    for part, before in zip(("actor", "teacher"), result["before"], strict=True):
        assert all(torch.equal(result[part][name], before[name]) for name in before), part


@pytest.fixture(scope="module")
def one_rank_with_all_settings(model):
    return run(model, dp=1, sp=1, settings=ALL_SETTINGS)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("dp", [1, 2])
def test_every_teacher_divergence_and_support(model, one_rank_with_all_settings, dp):
    found = run(model, dp=dp, sp=SP, settings=ALL_SETTINGS)
    for setting, result in one_rank_with_all_settings.items():
        assert_same(found[setting], result)
