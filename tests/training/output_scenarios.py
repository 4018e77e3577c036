"""Scenarios for `worker_process.run_ranks` of how log-probs and entropies are made: of logits, or without them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from srpo_verl.training.fields import TOPK_IDS
from srpo_verl.training.worker import objective as objective_module
from srpo_verl.training.worker import policy_outputs
from srpo_verl.training.worker.fused_head import FusedHead, FusedHeadError
from tests.training import rows as build
from tests.training import scenarios


def functions_called(worker: Any, rank: int, world: int, payload: Any) -> set[str]:
    """By which functions an update makes log-probs and divergence."""
    called: set[str] = set()

    def counted(module: Any, name: str) -> None:
        function = getattr(module, name)

        def call(*args: Any, **options: Any) -> Any:
            called.add(name)
            return function(*args, **options)

        setattr(module, name, call)

    counted(objective_module, "logit_divergence")
    counted(policy_outputs, "listed_log_probs")
    counted(policy_outputs, "linear_log_probs")
    scenarios.train(worker, rank, world, {"steps": 1})
    return called


def log_probs_and_entropies(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What the policy's and the reference's pass give at a temperature, packed, with and without top K."""
    batch = build.make_batch(vocabulary=scenarios.VOCABULARY, srpo=worker.srpo)
    found = {}
    for collect in (True, False):
        data = build.log_prob_batch(batch, list(range(len(batch))), srpo_collect_topk=collect, **payload)
        output = worker.compute_log_prob(data)
        found |= {f"{name} {collect}": output[name].values() for name in ("log_probs", "entropy")}
        if collect:
            found["ids"] = output[TOPK_IDS].values()
    worker.ref = worker.actor
    reference = worker.compute_ref_log_prob(build.log_prob_batch(batch, list(range(len(batch))), **payload))
    return {**found, "reference": reference["log_probs"].values()}


def other_heads(worker: Any, rank: int, world: int, payload: Any) -> dict[str, str]:
    """What a fused head says of models whose logits are more than a product with the output layer's weights."""
    engine = worker.actor.engine
    module, layer = engine.module, engine.module.get_output_embeddings()
    forward, build_logits = module.forward, layer.forward

    def scaled(*args: Any, **options: Any) -> Any:
        output = forward(*args, **options)
        output.logits = output.logits * 0.5
        return output

    def refused() -> str:
        with pytest.raises(FusedHeadError) as caught:
            FusedHead(engine)
        return str(caught.value)

    said = {}
    module.forward = scaled
    said["scaled"] = refused()
    module.forward, layer.forward = forward, lambda hidden: build_logits(hidden).tanh()
    said["softcap inside"] = refused()
    layer.forward, layer.bias = build_logits, torch.nn.Parameter(torch.zeros(scenarios.VOCABULARY))
    said["bias"] = refused()
    layer.bias, layer.base_layer = None, layer.weight
    said["adapter"] = refused()
    return said


def passes_that_want_logits(worker: Any, rank: int, world: int, payload: Any) -> dict[str, str]:
    """What a worker with `srpo.fused_linear` says of passes that would build logits, and that it goes on after."""
    batch = build.make_batch(vocabulary=scenarios.VOCABULARY, srpo=worker.srpo)
    fields, rows = scenarios.step_fields(worker, batch), list(range(len(batch)))
    asked = {"distillation_only": True, "distillation_use_topk": True}
    options = {
        "not asked": {"distillation_use_topk": False},
        "log-probs by verl": {"distillation_only": False},
        "entropy by verl": {**asked, "calculate_entropy": True},
        "sum of squares": {**asked, "calculate_sum_pi_squared": True},
        "padding": {**asked, "use_remove_padding": False},
        "temperatures": {**asked, "temperature": torch.linspace(0.5, 1, len(batch))},
    }
    said = {}
    for name, option in options.items():
        with pytest.raises(FusedHeadError) as caught:
            scenarios.gradient(worker, batch, rows, fields, **option)
        said[name] = str(caught.value)
    assert scenarios.gradient(worker, batch, rows, fields, **asked)["loss"] != 0
    return said
