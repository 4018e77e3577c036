"""A checkpoint of the real worker with an adapter becomes the model that was trained, not its base."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.training import lora, naive_step, tiny_model
from tests.training.worker_process import run_ranks
from workflows.evaluate.checkpoint import resolve_model
from workflows.evaluate.held_checkpoint import CheckpointError

pytestmark = [pytest.mark.slow, pytest.mark.needs_cpu_set]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.build(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("world", [1, 2])
def test_the_adapter_is_in_the_weights(model, world, tmp_path):
    step = tmp_path / "global_step_2"
    found = run_ranks(lora.save, world, model, {"folder": str(step)}, [*lora.LORA, "srpo.teacher.kind=frozen"])
    expected, base = lora.merged(model, found["actor"]), lora.merged(model, {})
    folder = resolve_model(str(step))
    weights = naive_step.load(folder).state_dict()
    assert weights.keys() == expected.keys()
    for name, value in weights.items():
        # The base model, A and B have been rounded to bfloat16 by verl, and their sum is.
        torch.testing.assert_close(value, expected[name], rtol=2**-7, atol=2**-7 * float(base[name].std()))
    moved = [name for name in base if lora.distance({name: expected[name]}, {name: base[name]}) > 0.05]
    assert len(moved) == 14  # seven linear layers in each of two blocks
    for name in moved:
        left, was = lora.distance({name: weights[name]}, {name: expected[name]}), 0.05
        assert left < was / 10
    adapter = step / "actor" / "hf_merged" / "lora_adapter"
    described = json.loads((adapter / "adapter_config.json").read_text())
    assert (described["r"], described["lora_alpha"]) == (lora.RANK, lora.ALPHA)
    assert len(load_file(adapter / "adapter_model.safetensors")) == 28


def test_an_adapter_alone_is_no_model(model, tmp_path):
    step = tmp_path / "global_step_2"
    overrides = [*lora.LORA, "srpo.teacher.kind=frozen", "+actor_rollout_ref.actor.checkpoint.save_lora_only=true"]
    run_ranks(lora.save, 1, model, {"folder": str(step)}, overrides)
    with pytest.raises(CheckpointError, match="holds the adapter alone"):
        resolve_model(str(step))
    assert not list((step / "actor").glob("*hf_merged*"))
