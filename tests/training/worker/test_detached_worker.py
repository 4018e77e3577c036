"""The separate trainer's worker: pi_old is kept over a batch that is updated piece by piece, with one EMA step."""

import pytest
import torch

from tests.training import separate_scenarios, tiny_model
from tests.training.worker_process import run_ranks

pytestmark = pytest.mark.needs_cpu_set
RATE = 0.05


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    model = tiny_model.build(tmp_path_factory.mktemp("model"))
    return run_ranks(separate_scenarios.two_mini_batches, 1, model, {"model": str(model)})


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in other)


def test_ids_and_old_log_probs_of_a_later_mini_batch_are_those_of_the_weights_before_the_batch(result):
    assert same(result["restored"], result["start"])
    assert not same(result["first"]["actor"], result["start"])
    for name in ("topk_ids", "old_log_probs"):
        for one, other in zip(result["kept"][name], result["before"][name], strict=True):
            assert torch.equal(one, other), name
    assert any(row.numel() for row in result["before"]["topk_ids"])


def test_the_update_goes_on_from_the_weights_of_the_mini_batch_before(result):
    assert same(result["returned"], result["first"]["actor"])
    assert not same(result["second"]["actor"], result["returned"])


def test_the_teacher_moves_once_towards_the_weights_after_the_last_mini_batch(result):
    start, last = result["start"], result["second"]["actor"]
    assert same(result["first"]["teacher"], start)
    assert "srpo/teacher_distance" not in result["first"]["metrics"]
    for name, value in result["second"]["teacher"].items():
        expected = start[name].double() + RATE * (last[name].double() - start[name].double())
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-7)
    assert result["second"]["metrics"]["srpo/teacher_distance"] > 0
