"""What each token of a response adds to its text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch


class TokenTexts:
    """Token ids to texts that, one after the other, are the response: a character that several tokens make is in the
    last of them.

    A text is what a token adds to that of the tokens before it: alone, some tokenizers leave out its leading space.
    """

    # Tokens that may share characters, one with the next, before they are shown with what cannot be decoded.
    LONGEST = 16

    def __init__(self, decode: Callable[[torch.Tensor], str]):
        self._decode = decode
        self._known: dict[tuple[int, ...], str] = {}

    def of(self, ids: Sequence[int]) -> list[str]:
        pieces: list[str] = []
        before = after = 0  # ids[before:after] are the tokens before, whose text is out
        for end in range(1, len(ids) + 1):
            known, text = self._text(tuple(ids[before:after])), self._text(tuple(ids[before:end]))
            if text.endswith("\ufffd") and end - after < self.LONGEST and end < len(ids):
                pieces.append("")
                continue
            pieces.append(text[len(known) :])
            before, after = after, end
        return pieces

    def _text(self, ids: tuple[int, ...]) -> str:
        if not ids:
            return ""
        if ids not in self._known:
            self._known[ids] = self._decode(torch.tensor(ids))
        return self._known[ids]
