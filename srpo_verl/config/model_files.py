"""The files of a model's local folder: a download or a conversion that broke off is found before Ray starts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_INDEX = "model.safetensors.index.json"
_FINISH = "finish the download or the conversion"


def model_config(path: str) -> dict[str, Any]:
    """The model's `config.json`, {} if `path` is not a local folder that has one.

    Raises:
        ValueError: the file is damaged.
    """
    file = Path(path).expanduser() / "config.json"
    return json_object(file) if file.is_file() else {}


def weight_problems(path: str) -> Iterator[str]:
    """Why the weights in a local folder cannot be loaded. Of each file the header is read, and its length compared."""
    from safetensors import SafetensorError, safe_open

    folder = Path(path).expanduser()
    if not folder.is_dir():
        return  # a name on the hub, or the folder is said to be missing
    files = sorted(folder.glob("*.safetensors"))
    if not files and not any(folder.glob("*.bin")):
        yield f"{folder} has no weights (*.safetensors): {_FINISH}"
    for file in files:
        try:
            with safe_open(file, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            yield f"{file} is damaged or not whole ({error}): {_FINISH}"
    if (folder / _INDEX).is_file():
        named = json_object(folder / _INDEX).get("weight_map") or {}
        if missing := sorted({name for name in named.values() if not (folder / name).exists()}):
            more = ", ..." if len(missing) > 3 else ""
            yield f"{folder} lacks {len(missing)} files of its weights ({', '.join(missing[:3])}{more}): {_FINISH}"


def json_object(file: Path) -> dict[str, Any]:
    """A file of a model or an adapter. Raises ValueError where it is damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON ({error}): {_FINISH}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} holds no JSON object: {_FINISH}")  # noqa: TRY004 - the file is wrong
    return found
