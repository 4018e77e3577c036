"""Whether prepared rows are the published ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from workflows.prepare.adapters.benchmark import Published

EXACT, COUNT, COUNT_DIFFERS, CONTENT_DIFFERS, UNKNOWN = (
    "exact: the published rows",
    "the published number of rows (no hash is known)",
    "DIFFERS: another number of rows than published",
    "DIFFERS: the published number of rows, other content",
    "nothing is published to compare with",
)


def content_hash(rows: Iterable[dict[str, Any]]) -> str:
    """A hash of prompts and ground truths that does not depend on the order of the rows."""
    digests = sorted(
        hashlib.sha256(json.dumps([row["prompt"], row["reward_model"]["ground_truth"]]).encode()).hexdigest()
        for row in rows
    )
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def compare(rows: int, sha256: str, published: Published | None) -> str:
    """One of the sentences above."""
    if published is None:
        return UNKNOWN
    if rows != published.rows:
        return COUNT_DIFFERS
    if published.sha256 is None:
        return COUNT
    return EXACT if sha256 == published.sha256 else CONTENT_DIFFERS
