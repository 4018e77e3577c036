"""The methods as settings: what the shipped configs change against SRPO, as overrides of the config `srpo_lab`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig

from srpo_verl.config import SRPOConfig, settings
from workflows.compose_config import compose_config

ROOT = Path(__file__).resolve().parent.parent
CONFIG = str(ROOT / "laboratory" / "configs" / "srpo_lab.yaml")
METHODS = (
    "grpo",
    "sdpo",
    "srpo",
    "srpo_routing_only",
    "advantage_mix",
    "sdpo_correct_only",
    "sdpo_incorrect_only",
)


def method_overrides(method: str) -> list[str]:
    """Hydra overrides of the method's `srpo` keys; optimiser settings are the laboratory's own.

    Raises:
        ValueError: no shipped config has this name.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}.")
    return [f"srpo.{key}={value}" for key, value in _srpo_node(method).items()] if method != "srpo" else []


def _srpo_node(name: str) -> dict[str, Any]:
    """The `srpo` keys of a method's YAML, those of the method it derives from included."""
    content = yaml.safe_load(files("srpo_verl.config").joinpath(f"{name}.yaml").read_text())
    parent = content["defaults"][0]
    inherited = {} if parent == "srpo" else _srpo_node(parent)
    return {**inherited, **content.get("srpo", {})}


def compose(overrides: Sequence[str]) -> DictConfig:
    """The config `srpo_lab` with overrides, resolved."""
    return compose_config(CONFIG, overrides)


def algorithm(method: str, overrides: Sequence[str] = ()) -> SRPOConfig:
    """The method's settings."""
    return settings(compose([*method_overrides(method), *overrides]).srpo)
