"""Which settings hold a secret, by their name."""

from __future__ import annotations

import re

# hf_token and accessToken are secrets; pad_token is a word of the vocabulary, max_token a number.
_HARMLESS_TOKENS = (
    "pad eos bos unk sep cls mask start end stop begin special added audio image video think max min num per first "
    "last next new"
)
_SECRET = re.compile(
    r"(api|access|private|secret)[_-]?keys?$|(secret|password|passwd|passphrase|credential)s?$"
    rf"|^(?!(.*[_-])?({_HARMLESS_TOKENS.replace(' ', '|')})[_-]?token$).*token$",
    re.IGNORECASE,
)


def is_secret(key: str) -> bool:
    """Whether a setting of this name, alone or as a path (`trainer.keys.0`), holds a secret if it holds text."""
    return bool(_SECRET.search(re.sub(r"(\.\d+)+$", "", key).rpartition(".")[2]))
