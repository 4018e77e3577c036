"""The methods of the paper: the name of each one's YAML here, its title in tables, and its settings."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import yaml

# In the order of the paper.
METHODS = {
    "grpo": "GRPO",
    "sdpo": "SDPO",
    "srpo": "SRPO",
    "srpo_routing_only": "SRPO, routing only",
    "advantage_mix": "Advantage Mix",
    "sdpo_correct_only": "SDPO, correct only",
    "sdpo_incorrect_only": "SDPO, incorrect only",
}


def method_settings(name: str) -> dict[str, Any]:
    """The `srpo.*` keys by which a method differs from SRPO, those of the method it derives from included.

    Raises:
        ValueError: no method has this name.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}: choose one of {', '.join(METHODS)}")
    if name == "srpo":
        return {}
    content = yaml.safe_load(files("srpo_verl.config").joinpath(f"{name}.yaml").read_text())
    return {**method_settings(content["defaults"][0]), **content.get("srpo", {})}
