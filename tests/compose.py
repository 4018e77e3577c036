"""Composed configs, as `python -m verl.trainer.main_ppo --config-name NAME` would see them."""

from workflows.compose_config import compose_config as compose

__all__ = ["compose"]
