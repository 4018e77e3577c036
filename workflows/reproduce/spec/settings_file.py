"""A YAML file read into a pydantic model, with errors that name the file, the place in it and what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from pydantic import BaseModel, ConfigDict, ValidationError

Model = TypeVar("Model", bound="Strict")


class Strict(BaseModel):
    """Unknown keys are refused: a misspelt setting must not be a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SettingsError(ValueError):
    """A grid or site file that cannot be used as it is."""


def load(path: Path, kind: type[Model]) -> Model:
    """Read `path` as `kind`. Raises SettingsError with one line per mistake, FileNotFoundError if it is not there."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: expected settings as `key: value`, found {type(content).__name__}")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise SettingsError(f"{path}:\n" + "\n".join(_lines(error, kind))) from error


def checked_overrides(overrides: tuple[str, ...]) -> tuple[str, ...]:
    """Hydra overrides as a person types them; raises ValueError for what Hydra would not take."""
    parser = OverridesParser.create()
    for override in overrides:
        try:
            parser.parse_override(override)
        except HydraException as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{override!r} is no Hydra override (key=value, +key=value, ~key): {reason}") from error
    return overrides


def _lines(error: ValidationError, kind: type[BaseModel]) -> list[str]:
    lines = []
    for mistake in error.errors():
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in mistake["loc"]).lstrip(".")
        text = mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] == "extra_forbidden":
            text = "no such setting"
            if len(mistake["loc"]) == 1:
                text += f"; there is: {', '.join(kind.model_fields)}"
        lines.append(f"  {place or 'the file'}: {text}")
    return lines
