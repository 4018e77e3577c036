"""`make help`, and that the comment it prints has every target."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAD = re.match(r"(#.*\n)+", (ROOT / "Makefile").read_text())[0]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_help_is_the_comment_at_the_head():
    # `make test` has this make say which directory it enters.
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [line.removeprefix("#").removeprefix(" ") for line in HEAD.splitlines()]


def test_the_comment_has_every_target():
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    unnamed = [name for name in targets if not re.search(rf"\bmake {name}\b(?!-)", HEAD)]
    assert unnamed == ["help", "format"]
