"""The methods: the name of each one's YAML here, its title in tables, and its settings."""

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
# Of other papers, and a control; docs/family.md says what each is.
FAMILY = {
    "opsd": "OPSD",
    "i_sdpo": "I-SDPO",
    "sc_sdpo": "SC-SDPO",
    "rlsd": "RLSD",
    "rlrt": "RLRT",
    "sdpg": "SDPG",
    "ssopd": "SSOPD",
    "demopsd": "DemoPSD",
    "drift": "DRIFT",
    "rlcsd": "RLCSD",
    "srpo_sign_routed": "SRPO, routed by sign",
    "grpo_ema_kl": "GRPO, KL to its EMA",
}


def method_settings(name: str) -> dict[str, Any]:
    """The `srpo.*` keys by which a method differs from SRPO, those of the method it derives from included.

    Raises:
        ValueError: no method has this name.
    """
    if name == "srpo":
        return {}
    content = _content(name)
    return _merged(method_settings(content["defaults"][0]), content.get("srpo", {}))


def _content(name: str) -> dict[str, Any]:
    if name not in METHODS | FAMILY:
        raise ValueError(f"unknown method {name!r}: choose one of {', '.join(METHODS | FAMILY)}")
    return yaml.safe_load(files("srpo_verl.config").joinpath(f"{name}.yaml").read_text())


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """`one` with what `other` says, node by node."""
    both = [key for key in one.keys() & other.keys() if isinstance(one[key], dict)]
    return {**one, **other, **{key: _merged(one[key], other[key]) for key in both}}
