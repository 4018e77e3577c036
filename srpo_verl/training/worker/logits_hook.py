"""The shape of a loss function that also wants the logits.

With the flag `distillation_use_topk`, verl's engine calls the loss function twice per micro-batch: first as logits
processor, with the student's logits, then as loss, with the model's outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from tensordict import TensorDict


class LogitsHook(ABC):
    """Loss function of a `TrainingWorker` in two methods, one per call."""

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
            return self.on_logits(student_logits.squeeze(0), data)
        assert model_output is not None
        return self.on_outputs(model_output, data, dp_group)

    @abstractmethod
    def on_logits(self, logits: torch.Tensor, data: TensorDict) -> dict[str, torch.Tensor]:
        """From the packed logits (nnz, V), already divided by the temperature: outputs of shape (1, nnz)."""

    @abstractmethod
    def on_outputs(
        self, model_output: dict[str, torch.Tensor], data: TensorDict, dp_group: Any
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Loss and metrics. Nested tensors put into `model_output` are written to TransferQueue in a forward pass."""
