"""What `srpo` starts: the command line of our top-level package `workflows`, if it is ours that Python finds.

Another distribution installs a package of that name too, into the same folder: what was installed last is found.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

NAME, OURS = "workflows", "srpo-verl"


def main() -> None:
    """Runs the command. Exit code 1 if another `workflows` stands in its way; an ImportError of ours is raised."""
    _end_if(foreign_package(_found()))
    try:
        command = import_module(f"{NAME}.cli").app
    except ImportError:
        _end_if(check_package())
        raise
    command()


def _end_if(problem: str | None) -> None:
    if problem:
        print(f"srpo: {problem}", file=sys.stderr)
        raise SystemExit(1)


def foreign_package(found: Iterable[str], owners: Collection[str] = ()) -> str | None:
    """Why the package `workflows` is not ours alone, and what to do; None if it is.

    Args:
        found: the folders in which Python finds it.
        owners: the distributions that say they have installed it.
    """
    ours = Path(__file__).resolve().parents[2] / NAME
    elsewhere = [folder for folder in found if Path(folder).resolve() != ours]
    if others := sorted(set(owners) - {OURS}):
        return (
            f"{', '.join(others)} installs a package `{NAME}` too, into the folder of ours: use an environment of its "
            f"own for each, or `pip uninstall {' '.join(others)}` and install {OURS} again"
        )
    if elsewhere:
        return (
            f"Python finds another package `{NAME}` before ours: {', '.join(elsewhere)} instead of {ours}. Take it out "
            "of PYTHONPATH, the current folder or this environment"
        )
    return None


def check_package() -> str | None:
    """`foreign_package` of this environment."""
    return foreign_package(_found(), _owners())


def _found() -> list[str]:
    spec = find_spec(NAME)
    folders = spec.submodule_search_locations if spec else None
    return [os.fspath(folder) for folder in folders] if folders else []


def _owners() -> list[str]:
    return metadata.packages_distributions().get(NAME, [])
