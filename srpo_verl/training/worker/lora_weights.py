"""What a LoRA adapter makes of a model's weights, W0 + s B A, shard by shard.

FSDP2 shards W0 (out, in) and B (out, r) by the same rows, so a rank merges its own with all of A (r, in), which is
gathered. Names are those of the model without an adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from peft.tuners.lora.layer import Linear, LoraLayer
from torch import nn
from torch.distributed.tensor import DTensor

from srpo_verl.training.worker.shards import local

ADAPTER = "default"  # verl gives its adapter no other name
# Gives this rank's shard of a weight, on a device.
Source: TypeAlias = Callable[[torch.device], torch.Tensor]


@dataclass(frozen=True)
class Factors:
    """A linear layer's A (r, in), B (out, r) and scale s, with the names of the two."""

    names: tuple[str, str]
    a: nn.Parameter
    b: nn.Parameter
    scale: float

    def shards(
        self, device: torch.device, own: Mapping[str, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All of A and this rank's rows of s B, float32; of another adapter if `own` has its shards. Collective."""
        a, b = [own[name] for name in self.names] if own is not None else [local(self.a), local(self.b)]
        return _whole(a.to(device).float(), self.a), self.scale * b.to(device).float()


def has_adapter(module: nn.Module) -> bool:
    return any(isinstance(layer, LoraLayer) for layer in module.modules())


def plain_name(name: str) -> str:
    """A parameter's name in the model without an adapter."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def factors(module: nn.Module) -> dict[str, Factors]:
    """By the name of the weight that they are added to.

    Raises:
        ValueError: something is trained that is not A or B of a linear layer.
    """
    found: dict[str, Factors] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, LoraLayer) and _is_plain(layer):
            names = (f"{name}.lora_A.{ADAPTER}.weight", f"{name}.lora_B.{ADAPTER}.weight")
            a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
            found[plain_name(f"{name}.base_layer.weight")] = Factors(names, a, b, float(layer.scaling[ADAPTER]))
    known = {name for low in found.values() for name in low.names}
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad or ".lora_" in name}
    if others := sorted(trained - known):
        raise ValueError(
            f"LoRA: {others[0]} and {len(others) - 1} more are no plain A or B of a linear layer (DoRA, embeddings, "
            "experts and modules_to_save are not), which are all that is merged here: leave them out of "
            "actor_rollout_ref.model.target_modules and of the adapter"
        )
    return found


def sources(module: nn.Module) -> dict[str, Source]:
    """This rank's shard of every weight by name, an adapter merged in float32. Calling one may be collective."""
    if not has_adapter(module):
        return {name: partial(_shard, parameter) for name, parameter in module.named_parameters()}
    lows = factors(module)
    return {
        plain_name(name): partial(_merged, parameter, lows.get(plain_name(name)))
        for name, parameter in module.named_parameters()
        if ".lora_" not in name
    }


def merged_state(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The whole state dict of the model without an adapter, the adapter merged in float32. Collective."""
    lows = factors(module)
    for name, value in module.state_dict().items():
        if ".lora_" not in name:
            plain = plain_name(name)
            yield plain, _whole(_merged(value, lows.get(plain), value.device), value).clone()


def _shard(parameter: nn.Parameter, device: torch.device) -> torch.Tensor:
    return local(parameter).to(device)


def _merged(parameter: torch.Tensor, low: Factors | None, device: torch.device) -> torch.Tensor:
    weight = local(parameter).to(device)
    if low is None:
        return weight
    a, b = low.shards(device)
    return torch.addmm(weight.float(), b, a)


def _whole(shard: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """All of a tensor of which each rank has a shard as of `like`. Collective."""
    if not isinstance(like, DTensor):
        return shard
    mesh, placements = like.device_mesh, like.placements
    return DTensor.from_local(
        shard, mesh, placements, run_check=False, shape=like.shape, stride=like.stride()
    ).full_tensor()


def _is_plain(layer: LoraLayer) -> bool:
    return (
        isinstance(layer, Linear)
        and not layer.fan_in_fan_out
        and set(layer.lora_A) == {ADAPTER}
        and layer.lora_variant.get(ADAPTER) is None
    )
