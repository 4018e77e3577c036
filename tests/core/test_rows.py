"""Pieces of selected rows."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from srpo_verl.core.rows import pieces, rows_at_once


@given(st.lists(st.integers(0, 8), max_size=9, unique=True), st.integers(1, 5))
def test_pieces_cover_the_rows_in_order(rows, chunk_size):
    logits, rows = torch.arange(27.0).reshape(9, 3), torch.tensor(rows, dtype=torch.int64)
    parts = list(pieces(logits, rows, chunk_size))
    assert [part.start for part, _ in parts] == list(range(0, len(rows), chunk_size))
    for part, piece in parts:
        assert torch.equal(piece, logits[rows[part]])


def test_rows_that_follow_each_other_are_not_copied():
    logits = torch.zeros(9, 3)
    copied = [
        piece.untyped_storage().data_ptr() != logits.untyped_storage().data_ptr()
        for _, piece in pieces(logits, torch.tensor([2, 3, 4, 7, 8, 0]), 3)
    ]
    assert copied == [False, True]


def test_pieces_of_a_large_vocabulary_are_small_on_a_cpu():
    assert rows_at_once(torch.empty(300, 10), 256) == 256
    assert rows_at_once(torch.empty(300, 49_152), 256) == 5
    assert rows_at_once(torch.empty(1, 2**22), 256) == 1
    assert rows_at_once(torch.empty(300, 151_936, device="meta"), 256) == 256
