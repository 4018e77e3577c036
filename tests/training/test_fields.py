"""Where response tokens sit in a packed micro-batch."""

import pytest
import torch
from tensordict import TensorDict
from torch.utils._python_dispatch import TorchDispatchMode
from verl.workers.utils.padding import no_padding_2_padding

from srpo_verl.training.fields import (
    flags,
    jagged,
    lengths_of,
    prediction_positions,
    require,
    row_sums,
    with_lengths_on_host,
)


def test_positions_by_hand():
    """Sequences of 5, 4 and 3 tokens with 2, 0 and 1 response tokens: positions 2, 3 and 10."""
    sequences = jagged([torch.arange(5), torch.arange(4), torch.arange(3)])
    assert prediction_positions(sequences, torch.tensor([2, 0, 1])).tolist() == [2, 3, 10]
    assert prediction_positions(sequences, torch.tensor([0, 0, 0])).tolist() == []


def test_rows_of_length_zero_keep_their_place():
    rows = [torch.zeros(0, 3), torch.ones(2, 3), torch.zeros(0, 3)]
    nested = jagged(rows)
    assert lengths_of(nested).tolist() == [0, 2, 0]
    assert [row.shape for row in nested.unbind()] == [(0, 3), (2, 3), (0, 3)]


def test_row_sums():
    rows = [torch.zeros(0), torch.tensor([0.0, 0.5]), torch.tensor([-1.0]), torch.zeros(0)]
    assert row_sums(jagged(rows)).tolist() == [0.0, 0.5, -1.0, 0.0]


def test_flags_are_one_number_per_row():
    assert flags(torch.tensor([True, False])).values().tolist() == [1, 0]


class Reads(TorchDispatchMode):
    """Counts what waits for a device if the tensor is there: a number that Python reads, or a size that is data."""

    NAMES = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::repeat_interleave")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        told = (kwargs or {}).get("output_size") is not None
        self.count += func._schema.name in self.NAMES and not told
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("rows", [2, 9])
def test_positions_read_one_number_however_many_rows(rows):
    sequences = jagged([torch.arange(5)] * rows)
    with Reads() as reads:
        prediction_positions(sequences, torch.tensor([2] * rows))
    assert reads.count == 1


def test_verls_rows_are_cut_alike_by_lengths_on_the_host():
    prompts, responses = [[1, 2], [3]], [[4], [5, 6, 7]]
    fields = {
        "prompts": jagged([torch.tensor(row) for row in prompts]),
        "responses": jagged([torch.tensor(row) for row in responses]),
    }
    data = TensorDict({**fields, "weights": jagged([torch.ones(1), torch.ones(3)])}, batch_size=2, device="cpu")
    values = torch.arange(7.0)
    found = with_lengths_on_host(data)
    assert torch.equal(no_padding_2_padding(values, found), no_padding_2_padding(values, data))
    assert no_padding_2_padding(values, found).tolist() == [[1.0, 0.0, 0.0], [3.0, 4.0, 5.0]]
    assert found["weights"] is data["weights"]
    assert torch.equal(data["responses"].values(), torch.tensor([4, 5, 6, 7]))
    assert found.device is None
    padded = TensorDict({"prompts": torch.ones(2, 1), "responses": torch.ones(2, 1)}, batch_size=2)
    assert with_lengths_on_host(padded) is padded


def test_a_field_that_did_not_arrive_is_named():
    with pytest.raises(KeyError, match="srpo_token_weights"):
        require(TensorDict({"responses": torch.zeros(1)}, batch_size=1), ["responses", "srpo_token_weights"])
