"""Which of verl's three trainers a run's trainer mode is built on. verl is imported when it is asked."""

from __future__ import annotations

from omegaconf import DictConfig

# verl's own names of them.
SYNC, COLOCATE_ASYNC, SEPARATE_ASYNC = "sync", "colocate_async", "separate_async"


def trainer_modes() -> list[str]:
    """The registered modes that route: ours, and those of subclasses."""
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    return [name for name, trainer in TRAINER_REGISTRY.items() if hasattr(trainer, "verl_mode")]


def verl_mode(config: DictConfig) -> str | None:
    """verl's name of the trainer beneath `trainer.v1.trainer_mode`; None if that mode does not route."""
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    return getattr(TRAINER_REGISTRY.get(config.trainer.v1.trainer_mode), "verl_mode", None)
