"""Which clauses do not hold."""

from __future__ import annotations

from pathlib import Path

from srpo_verl.verl_names.clauses import CLAUSES
from srpo_verl.verl_names.contract import Sources, problems


def broken(verl: Path | None = None) -> list[str]:
    """A sentence for each clause that does not hold.

    Args:
        verl: the folder of a package `verl` to read in place of the installed one.
    """
    sources = Sources(verl)
    return [
        f"{item.name} {problem} (needed by {item.needed_by})" for item in CLAUSES for problem in problems(item, sources)
    ]
