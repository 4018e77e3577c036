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


@pytest.fixture(params=["namespaces", "plain"])
def isolation(request):
    """Sandbox settings: under bubblewrap (skipped where it fails, unless SRPO_REQUIRE_BWRAP is set), and plain."""
    from reward_fns.result import BadSettings
    from reward_fns.sandbox import SandboxConfig, backend

    settings = {"isolation": request.param}
    try:
        backend(SandboxConfig(**settings))
    except BadSettings as error:
        if os.environ.get("SRPO_REQUIRE_BWRAP"):
            raise
        pytest.skip(str(error)[:200])
    return settings
