"""What a GPU process takes from verl's workers and engines by their private names."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

# Options of a batch that verl's engine reads: call the loss function as logits processor too; compute nothing else.
WANTS_LOGITS = "distillation_use_topk"
ONLY_LOGITS = "distillation_only"
WANTS_ENTROPY = "calculate_entropy"
WANTS_SUM_PI_SQUARED = "calculate_sum_pi_squared"
# What the engine calls its outputs per token; with `ONLY_LOGITS` the hook's of these names take their place.
LOG_PROBS = "log_probs"
ENTROPIES = "entropy"

T = TypeVar("T")


def policy_config(actor: Any) -> Any:
    """The `ActorConfig` that verl has bound to the loss function of its training worker."""
    return actor.loss_fn.keywords["config"]


@contextmanager
def loss_function(worker: Any, function: Callable[..., Any]) -> Iterator[None]:
    """Gives a training worker another loss function for a while."""
    before, worker.loss_fn = worker.loss_fn, function
    try:
        yield
    finally:
        worker.loss_fn = before


def sequence_parallel_group(worker: Any) -> Any:
    """The ranks that share the rows of a training worker; None if each has its own."""
    return worker.engine.ulysses_parallel_group


def train_options(worker: Any) -> dict[str, Any]:
    """What `TrainingWorker.train_batch` puts on a batch before it hands it to its engine."""
    config = worker.engine_config
    return {
        "use_remove_padding": worker.model_config.get("use_remove_padding", False),
        "use_dynamic_bsz": config.use_dynamic_bsz,
        "max_token_len_per_gpu": config.max_token_len_per_gpu,
        "micro_batch_size_per_gpu": config.micro_batch_size_per_gpu,
        "use_fused_kernels": config.use_fused_kernels,
    }


def set_fields(config: T, **values: Any) -> T:
    """Sets fields of a dataclass of verl's that is frozen once it is made. For a copy that is ours.

    Raises:
        AttributeError: it has no such field.
    """
    for name, value in values.items():
        getattr(config, name)
        object.__setattr__(config, name, value)
    return config


def without_offload_policy(engine: Any) -> None:
    """Keeps an engine that only runs forward, and is not built yet, from FSDP2's `CPUOffloadPolicy`.

    Its weights are then resident on the device, or with `param_offload` there for each pass.
    """
    config = engine.engine_config

    def as_one_that_trains(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def called(*args: Any, **kwargs: Any) -> Any:
            set_fields(config, forward_only=False)
            try:
                return method(*args, **kwargs)
            finally:
                set_fields(config, forward_only=True)

        return called

    engine._build_fsdp_module = as_one_that_trains(engine._build_fsdp_module)
    # Of an engine that only runs forward it takes the policy to do this.
    engine.to = as_one_that_trains(engine.to)
