"""`srpo --version`: what is installed, without importing any of it, and the commit of a checkout."""

from __future__ import annotations

import platform
from pathlib import Path

from srpo_verl.base.versions import git_state, package_versions


def version_line() -> str:
    """One line: our version, commit, and the versions of what it runs on."""
    versions = package_versions()
    ours = versions.pop("srpo-verl", "(not installed)")
    commit = checkout_commit(Path(__file__).resolve().parents[1])
    parts = [f"srpo_verl {ours}", *([f"commit {commit}"] if commit else [])]
    parts += [f"{name} {version}" for name, version in versions.items()]
    return ", ".join([*parts, f"Python {platform.python_version()}"])


def checkout_commit(folder: Path) -> str | None:
    """Of the git checkout whose top is `folder`, with `+` where files were changed; None if it is none.

    Of a package that was installed, a repository further up is somebody else's.
    """
    state = git_state(folder) if (folder / ".git").exists() else None
    return state["commit"][:12] + ("+" if state["dirty"] else "") if state else None
