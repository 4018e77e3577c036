"""A selection of packed tokens over the ranks that share it, rank after rank in one process."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srpo_verl.training.fields import jagged, prediction_positions
from srpo_verl.training.worker import sequence_parallel
from srpo_verl.training.worker.sequence_parallel import local_tokens, of_answering_rank


def parts(monkeypatch, positions, sequences, ranks):
    """`LocalTokens` of every rank; `whole` of a rank adds nothing to what it brings."""
    length = -(-sequences.values().shape[0] // ranks)
    logits = torch.zeros(length, 7)
    monkeypatch.setattr(sequence_parallel, "get_ulysses_sequence_parallel_group", lambda: "group")
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group: ranks)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor, group: None)
    found = []
    for rank in range(ranks):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda group, rank=rank: rank)
        found.append(local_tokens(logits, positions, sequences))
    return found


def test_two_ranks_by_hand(monkeypatch):
    """Sequences of 5 and 4 tokens, 3 and 1 of them responses: 5 tokens on each rank, the last of them padding."""
    sequences = jagged([torch.arange(5), torch.arange(4)])
    positions = prediction_positions(sequences, torch.tensor([3, 1]))
    assert positions.tolist() == [1, 2, 3, 7]
    first, second = parts(monkeypatch, positions, sequences, 2)
    assert (first.rows.tolist(), first.kept.tolist()) == ([1, 2, 3], [0, 1, 2])
    assert (second.rows.tolist(), second.kept.tolist()) == ([2], [3])
    (whole,) = second.whole({"x": torch.tensor([[5, 6]], dtype=torch.int32)}).values()
    assert whole.dtype == torch.int32
    assert whole.tolist() == [[0, 0], [0, 0], [0, 0], [5, 6]]


@given(
    lengths=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=5),
    ranks=st.integers(2, 5),
    seed=st.integers(0, 1000),
)
def test_each_token_is_of_one_rank_and_the_parts_add_up(lengths, ranks, seed):
    with pytest.MonkeyPatch.context() as monkeypatch:
        sequences = jagged([torch.arange(prompt + response) for prompt, response in lengths])
        positions = prediction_positions(sequences, torch.tensor([response for _, response in lengths]))
        values = torch.randn(positions.shape[0], 3, generator=torch.Generator().manual_seed(seed))
        found = parts(monkeypatch, positions, sequences, ranks)
        total = sum(part.whole({"x": values[part.kept]})["x"] for part in found)
        assert torch.equal(total, values)
        length = -(-sequences.values().shape[0] // ranks)
        everywhere = torch.cat([rank * length + part.rows for rank, part in enumerate(found)])
        assert torch.equal(everywhere, positions)


def test_one_rank_has_everything_and_copies_nothing():
    sequences, positions = jagged([torch.arange(5)]), torch.tensor([2, 3])
    here = local_tokens(torch.zeros(5, 7), positions, sequences)
    values = torch.ones(2, 3)
    assert here.rows is positions
    assert values[here.kept].data_ptr() == values.data_ptr()
    assert here.whole({"x": values})["x"] is values
    assert of_answering_rank([1.0], None) == [1.0]


@pytest.mark.parametrize("length", [4, 6])
def test_logits_of_another_length_are_refused(length):
    with pytest.raises(RuntimeError, match=f"5 packed tokens on 1 rank.* logits of {length} tokens"):
        local_tokens(torch.zeros(length, 7), torch.tensor([2, 3]), jagged([torch.arange(5)]))
