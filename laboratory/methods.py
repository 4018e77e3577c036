"""The methods as settings: what the shipped configs change against SRPO, as overrides of the config `srpo_lab`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from srpo_verl.config import SRPOConfig, method_settings, settings
from workflows.compose_config import compose_config

ROOT = Path(__file__).resolve().parent.parent
CONFIG = str(ROOT / "laboratory" / "configs" / "srpo_lab.yaml")


def method_overrides(method: str) -> list[str]:
    """Hydra overrides of the method's `srpo` keys; optimiser settings are the laboratory's own.

    Raises:
        ValueError: no shipped config has this name.
    """
    return [f"srpo.{key}={value}" for key, value in method_settings(method).items()]


def compose(overrides: Sequence[str]) -> DictConfig:
    """The config `srpo_lab` with overrides, resolved."""
    return compose_config(CONFIG, overrides)


def algorithm(method: str, overrides: Sequence[str] = ()) -> SRPOConfig:
    """The method's settings."""
    return settings(compose([*method_overrides(method), *overrides]).srpo)
