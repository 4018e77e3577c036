"""Fixtures of the reward tests."""

import json
import os
from pathlib import Path

import pytest


@pytest.fixture
def published_rows():
    """A function that reads a JSON-lines file of benchmark rows below ``SRPO_TEST_DATA``; skips without it."""
    folder = os.environ.get("SRPO_TEST_DATA")
    if not folder:
        pytest.skip("SRPO_TEST_DATA is not set")

    def read(name):
        return [json.loads(line) for line in (Path(folder) / name).read_text(encoding="utf-8").splitlines()]

    return read
