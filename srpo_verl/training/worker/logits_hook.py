"""The shape of a loss function that also wants the logits, or what they are made of.

With the flag `distillation_use_topk`, verl's engine calls the loss function twice per micro-batch: first as logits
processor, with the student's logits, then as loss, with the model's outputs. Both calls stand inside the autocast of
the model's forward pass, which is for matrix products of the model: what is computed from logits keeps its dtype.
With `srpo.fused_linear` the model's output layer asks it instead of building logits (`fused_head`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from srpo_verl.core import without_autocast
from srpo_verl.verl_names.worker import ONLY_LOGITS, WANTS_ENTROPY, WANTS_LOGITS

# Option of a batch: the hook is to give the entropy, which the engine leaves alone.
ENTROPY = "srpo_entropy"


def leave_all_to_hook(data: TensorDict) -> None:
    """Sets the options of a batch so that the engine only runs the model: log-probs and entropy are the hook's."""
    entropy = tu.get_non_tensor_data(data, WANTS_ENTROPY, False)
    tu.assign_non_tensor(data, **{WANTS_LOGITS: True, ONLY_LOGITS: True, ENTROPY: entropy, WANTS_ENTROPY: False})


@dataclass(frozen=True)
class OutputLayer:
    """What the logits would be made of: `hidden @ weight.T / temperature`.

    Attributes:
        hidden: (nnz, H), of the packed tokens; with sequence parallelism this rank's part.
        weight: (V, H), the same dtype.
        with_entropy: whether verl wants the entropy as well.
    """

    hidden: torch.Tensor
    weight: torch.Tensor
    temperature: float
    with_entropy: bool


class LogitsHook(ABC):
    """Loss function of a `TrainingWorker` in two methods, one per call."""

    # What the output layer was told, in the order of the columns that it returned in place of logits.
    answered: tuple[str, ...] | None = None

    def __call__(
        self,
        model_output: dict[str, torch.Tensor] | None = None,
        data: TensorDict | None = None,
        dp_group: Any = None,
        student_logits: torch.Tensor | None = None,
        **_: Any,
    ) -> Any:
        assert data is not None
        if student_logits is not None:
            names, self.answered = self.answered, None
            if names is not None:
                return {name: student_logits[..., place] for place, name in enumerate(names)}
            with without_autocast(student_logits):
                return self.on_logits(student_logits.squeeze(0), data)
        assert model_output is not None
        return self.on_outputs(model_output, data, dp_group)

    @abstractmethod
    def on_logits(self, logits: torch.Tensor, data: TensorDict) -> dict[str, torch.Tensor]:
        """From the packed logits (nnz, V), already divided by the temperature: outputs of shape (1, nnz).

        With sequence parallelism both are this rank's part (`sequence_parallel`); verl puts the outputs together.
        """

    def on_output_layer(self, layer: OutputLayer, data: TensorDict) -> dict[str, torch.Tensor]:
        """The same without logits, and what the engine would have computed of them: outputs of shape (nnz,).

        Raises:
            RuntimeError: this hook has no use for anything but logits.
        """
        raise RuntimeError(f"{type(self).__name__} needs logits: set srpo.fused_linear=false")

    @abstractmethod
    def on_outputs(
        self, model_output: dict[str, torch.Tensor], data: TensorDict, dp_group: Any
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Loss and metrics. Nested tensors put into `model_output` are written to TransferQueue in a forward pass."""
