"""The methods as settings: what the shipped configs change against SRPO, as overrides of the config `srpo_lab`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from srpo_verl.config import SRPOConfig, method_settings, settings
from workflows.compose_config import compose_config

ROOT = Path(__file__).resolve().parent.parent
CONFIG = str(ROOT / "laboratory" / "configs" / "srpo_lab.yaml")


def method_overrides(method: str) -> list[str]:
    """Hydra overrides of the method's `srpo` keys; optimiser settings are the laboratory's own.

    All methods have SRPO's denominator, the response tokens: what the published records were made with.

    Raises:
        ValueError: no shipped config has this name.
    """
    return _overrides("srpo", {**method_settings(method), "denominator": "all_tokens"})


def _overrides(node: str, settings: Mapping[str, Any]) -> list[str]:
    """`node.key=value` for each key, and each key of a key."""
    found = []
    for key, value in settings.items():
        name = f"{node}.{key}"
        found += _overrides(name, value) if isinstance(value, Mapping) else [f"{name}={value}"]
    return found


def compose(overrides: Sequence[str]) -> DictConfig:
    """The config `srpo_lab` with overrides, resolved."""
    return compose_config(CONFIG, overrides)


def algorithm(method: str, overrides: Sequence[str] = ()) -> SRPOConfig:
    """The method's settings."""
    return settings(compose([*method_overrides(method), *overrides]).srpo)
