"""A command-line option that is a JSON object."""

from __future__ import annotations

import json
from typing import Any

import typer


def json_object(text: str, option: str) -> dict[str, Any]:
    """The value of `option`. Raises typer.BadParameter (exit code 2) if it is anything else."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{option} {text}: must be a JSON object")
    return value
