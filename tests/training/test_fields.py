"""Where response tokens sit in a packed micro-batch."""

import pytest
import torch
from tensordict import TensorDict

from srpo_verl.training.fields import flags, jagged, lengths_of, prediction_positions, require, row_sums


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


def test_a_field_that_did_not_arrive_is_named():
    with pytest.raises(KeyError, match="srpo_token_weights"):
        require(TensorDict({"responses": torch.zeros(1)}, batch_size=1), ["responses", "srpo_token_weights"])
