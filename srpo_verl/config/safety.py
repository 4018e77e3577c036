"""The `srpo.checkpoint.*` and `srpo.guards.*` keys."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class CheckpointConfig:
    """How checkpoints are kept. When is verl's `trainer.save_freq`, how many its `trainer.max_actor_ckpt_to_keep`."""

    # Saves that may fail one after the other (disk full) before the run stops. The last step's save may never fail.
    max_failures: int = 3
    # Never prune the checkpoint with the best validation accuracy.
    keep_best: bool = True
    # Resume although the training data changed, and read the new data from its beginning.
    restart_data: bool = False


@dataclass
class GuardsConfig:
    """Steps in a row after which a guard stops the run; it warns after half of them. 0 switches a guard off."""

    # A gradient norm that is NaN or infinite: the update was skipped.
    nonfinite: int = 3
    # Format rate, entropy or response length collapsed, and the training accuracy fell to half of its best.
    format: int = 40
    entropy: int = 40
    length: int = 40
    # Validations in a row at which training accuracy ran away from a falling validation accuracy.
    gap: int = 5
    # No rollout was distilled although groups were mixed; no group was mixed at all.
    unrouted: int = 100
    unmixed: int = 200
    # The EMA teacher is identical to an actor that is being updated.
    idle_teacher: int = 10
    # The gradient of one branch is zero although it has tokens (counted in measurements, see srpo.grad_norm_freq).
    branch_gradient: int = 5
    # Steps of the running means that format, entropy, length and accuracy are compared by.
    window: int = 20
