"""A package, that of examples/custom_variant if none is named, installed by pip into a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = REPOSITORY / "examples" / "custom_variant"


def install(folder: Path, package: Path = EXAMPLE) -> Path:
    """The folder to put on PYTHONPATH."""
    site, source = folder / "site", folder / "source"  # pip builds in the source tree
    shutil.copytree(package, source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "--target", str(site), str(source)], capture_output=True, text=True, check=False)
    if done.returncode and "setuptools" in done.stderr and "No module named" in done.stderr:
        pytest.skip("pip or setuptools is not installed in this environment")
    assert done.returncode == 0, done.stderr
    return site


def environment(site: Path) -> dict[str, str]:
    """What a process needs to find the package, and this project, from any folder."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(REPOSITORY)])}
