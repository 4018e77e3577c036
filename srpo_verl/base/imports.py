"""What to do about a module that Python does not find."""

from __future__ import annotations


def how_to_find(module: str, error: BaseException) -> str:
    """The end of a sentence about an import of `module` that failed; "" if it was found and something else is wrong."""
    if not isinstance(error, ModuleNotFoundError) or not f"{module}.".startswith(f"{error.name}."):
        return ""
    return (
        "; put the absolute path of the folder that it is in on PYTHONPATH, on every node (Ray's workers run in other "
        "folders), or make it a package and `pip install` it"
    )
