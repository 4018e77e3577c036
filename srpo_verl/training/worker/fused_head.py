"""A model whose output layer answers the loss function's questions instead of building logits (`srpo.fused_linear`).

Inside the model's forward pass FSDP2 has the layer's weights whole, and its hooks for the backward pass hang on what
the model returns. So the layer's forward is replaced: while the engine runs a micro-batch it hands hidden states and
weights to our loss function and returns the answers, a few float32 numbers per token, in the place of logits; the
engine hands these on to the loss function. A pass that asks nothing stops the run, since it would build logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch import nn
from torch.distributed.tensor import DTensor
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id

from srpo_verl.core import linear_log_probs, without_autocast
from srpo_verl.training.fields import from_lengths
from srpo_verl.training.worker.logits_hook import ENTROPY, LogitsHook, OutputLayer, leave_all_to_hook
from srpo_verl.verl_names.worker import ONLY_LOGITS, WANTS_ENTROPY, WANTS_LOGITS, WANTS_SUM_PI_SQUARED

# Tokens that a model is tried with, and how far log-probs may then be apart: logits are rounded in either way.
_TRIED, _APART = 8, {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}


class FusedHeadError(RuntimeError):
    """The model's output layer cannot be asked."""


@dataclass
class _Question:
    hook: LogitsHook
    data: TensorDict
    asked: bool = False


class FusedHead:
    """The output layer of an engine's model, for as long as the engine lives. All ranks must make one.

    Raises:
        FusedHeadError: the layer is more than a product with its weights, or the model changes what it returns.
    """

    def __init__(self, engine: Any):
        self.layer: nn.Module = engine.module.get_output_embeddings()
        self._question: _Question | None = None
        _require_plain(self.layer)
        self._build_logits, self._forward_step = self.layer.forward, engine.forward_step
        with engine.eval_mode():
            self._try(type(engine.module).__name__)
        self.layer.forward = self._forward
        engine.forward_step = self._step

    def _step(self, micro_batch: TensorDict, loss_function: Any, forward_only: bool) -> Any:
        wanted = [tu.get_non_tensor_data(micro_batch, name, False) for name in (WANTS_LOGITS, ONLY_LOGITS)]
        others = [
            name for name in (WANTS_ENTROPY, WANTS_SUM_PI_SQUARED) if tu.get_non_tensor_data(micro_batch, name, False)
        ]
        if not isinstance(loss_function, LogitsHook) or not all(wanted) or others:
            raise FusedHeadError(
                f"srpo.fused_linear=true builds no logits, and a pass wants them ({', '.join(others) or loss_function})"
            )
        micro_batch = micro_batch.to(get_device_id())
        question = self._question = _Question(loss_function, micro_batch)
        try:
            result = self._forward_step(micro_batch, loss_function=loss_function, forward_only=forward_only)
            if not question.asked:
                raise FusedHeadError("the model did not call its output layer, which srpo.fused_linear=true asks")
            return result
        finally:
            self._question = loss_function.answered = None

    def _forward(self, hidden: torch.Tensor) -> torch.Tensor:
        question = self._question
        if question is None or question.asked or hidden.shape[0] != 1:
            raise FusedHeadError(
                "srpo.fused_linear=true: the model's output layer was called a second time, or outside a pass of the "
                f"engine, or on rows with padding ({tuple(hidden.shape)})"
            )
        question.asked, data = True, question.data
        temperature = data["temperature"]
        if isinstance(temperature, torch.Tensor) and temperature.numel() > 1:
            raise FusedHeadError("srpo.fused_linear=true takes one temperature for all rollouts, not one for each")
        layer = OutputLayer(
            *_factors(self.layer, hidden), float(temperature), tu.get_non_tensor_data(data, ENTROPY, False)
        )
        with without_autocast(hidden):
            answers = question.hook.on_output_layer(layer, data)
            # The engine divides by the temperature what it takes for logits.
            columns = [values.unsqueeze(0) * layer.temperature for values in answers.values()]
        question.hook.answered = tuple(answers)
        # No view: FSDP2 hangs its hook for the backward pass on what the model returns.
        return torch.stack(columns, dim=-1) if columns else hidden.new_zeros((*hidden.shape[:2], 1))

    def _try(self, model: str) -> None:
        """A pass of few tokens: whether the layer's logits give our log-probs, and the model returns what it does."""
        seen: list[torch.Tensor] = []
        apart = torch.zeros(())

        def marks(hidden: torch.Tensor) -> torch.Tensor:
            nonlocal apart
            logits, factors = self._build_logits(hidden).flatten(0, -2), _factors(self.layer, hidden)
            with without_autocast(hidden):
                best = logits.float().log_softmax(-1).topk(min(_TRIED, logits.shape[-1]), dim=-1)
                found = linear_log_probs(*factors, best.indices).log_probs
            apart = (found - best.values).abs().max() / _APART.get(logits.dtype, 1e-4)
            count = hidden.shape[:2].numel() * 3
            seen.append(torch.linspace(-100.0, 100.0, count, device=hidden.device).view(*hidden.shape[:2], 3))
            return seen[-1]

        returned = _Returned()
        ids = torch.arange(_TRIED)
        rows = {"input_ids": ids, "position_ids": ids}
        data = tu.get_tensordict(
            {name: from_lengths(values, torch.tensor([_TRIED])) for name, values in rows.items()},
            {"temperature": 1.0, "use_remove_padding": True},
        )
        leave_all_to_hook(data)
        with torch.no_grad(), _forward_of(self.layer, marks):
            self._forward_step(data, loss_function=returned, forward_only=True)
        if len(seen) != 1 or returned.logits.shape != seen[0][0].shape or not torch.equal(returned.logits, seen[0][0]):
            raise FusedHeadError(
                f"{model} changes the logits after its output layer (a softcap or a scale), or calls the layer in "
                "another way: set srpo.fused_linear=false"
            )
        if not float(apart) <= 1:
            raise FusedHeadError(
                f"the output layer of {model}, a {type(self.layer).__name__}, does more than multiply with its "
                "weights: set srpo.fused_linear=false"
            )


class _Returned(LogitsHook):
    """What the engine takes for logits."""

    logits: torch.Tensor

    def on_logits(self, logits: torch.Tensor, data: TensorDict) -> dict[str, torch.Tensor]:
        self.logits = logits
        return {}

    def on_outputs(self, model_output: Any, data: TensorDict, dp_group: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        return torch.zeros(()), {}


def _factors(layer: nn.Module, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states (nnz, H) and weights (V, H) in the dtype in which the layer would multiply them here."""
    weight, device = layer.weight, hidden.device.type
    if isinstance(weight, DTensor):
        raise FusedHeadError("the output layer's weights are sharded in the model's forward pass: not FSDP2's way")
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    return hidden.flatten(0, -2).to(dtype), weight.to(dtype)


@contextmanager
def _forward_of(layer: nn.Module, forward: Any) -> Iterator[None]:
    before, layer.forward = layer.forward, forward
    try:
        yield
    finally:
        layer.forward = before


def _require_plain(layer: nn.Module | None) -> None:
    if layer is None or not hasattr(layer, "weight") or hasattr(layer, "base_layer"):
        raise FusedHeadError(
            f"the model's output layer is {type(layer).__name__}, without weights of its own or with an adapter on it: "
            "set srpo.fused_linear=false, or leave the layer out of actor_rollout_ref.model.target_modules"
        )
    if getattr(layer, "bias", None) is not None:
        raise FusedHeadError("the model's output layer has a bias: set srpo.fused_linear=false")
