"""Composed configs, as `python -m verl.trainer.main_ppo --config-name NAME` would see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def compose(name: str, overrides: Sequence[str] = (), *, resolve: bool = True) -> Any:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from omegaconf import OmegaConf

    with initialize_config_module("verl.trainer.config", version_base=None):
        config = hydra_compose(name, overrides=list(overrides))
    if resolve:
        OmegaConf.resolve(config)
    return config
