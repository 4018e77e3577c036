"""The `srpo.checkpoint.*`, `srpo.lease.*`, `srpo.guards.*` and `srpo.watchdog.*` keys."""

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
    # Seconds that a run that is told to end (SIGTERM, SIGUSR1) goes on for, to reach its step's end and save it.
    grace: float = 300.0


@dataclass
class LeaseConfig:
    """Whose the run's folder is. Seconds; see `srpo_verl.base.lease`."""

    # Between two signs of life.
    interval: float = 5.0
    # Without a sign for so long: to other hosts the run is dead, and the run itself, once it wakes, stops.
    timeout: float = 180.0
    # Which start this is. Drawn anew by each; leave it null.
    run: str | None = None


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


@dataclass
class WatchdogConfig:
    """Seconds after which a wait ends the run, with a report. 0: no limit."""

    # Seconds between two looks. 0: no watchdog.
    interval: float = 5.0
    # Loading model and engines.
    startup: float = 3600.0
    # All rollouts of a batch, with their verdicts.
    gen: float = 7200.0
    # One pass over the validation set.
    testing: float = 14400.0
    # Each of the stages that compute: log-probs, teacher, advantages, update.
    compute: float = 7200.0
    # The actor's weights on their way to the rollout engine.
    update_weights: float = 1800.0
    save_checkpoint: float = 3600.0
    # One call of a tool: it then counts as failed, the model reads so, the rollout goes on.
    tool: float = 300.0
    # One verdict of the reward function: the rollout then counts as failed, the run goes on.
    reward: float = 600.0
