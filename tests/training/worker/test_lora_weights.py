"""Weights with an adapter merged, against peft's own merging in float64; and adapters that are more than s B A."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from srpo_verl.training.worker.lora_weights import factors, has_adapter, merged_state, sources
from tests.training import lora, naive_step, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.build(tmp_path_factory.mktemp("model"))


@pytest.fixture
def adapted(model):
    torch.manual_seed(0)
    found = lora.adapted(model, {}).float()
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.1)
    return found


def test_every_weight_under_its_own_name(adapted):
    assert has_adapter(adapted)
    found = {name: source_of(torch.device("cpu")) for name, source_of in sources(adapted).items()}
    state = dict(merged_state(adapted))
    expected = adapted.double().merge_and_unload().state_dict()
    assert found.keys() == state.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value, atol=1e-6, rtol=1e-6)
        assert torch.equal(state[name], found[name])


def test_a_model_without_an_adapter_is_its_parameters(model):
    plain = naive_step.load(model)
    assert not has_adapter(plain)
    for name, source_of in sources(plain).items():
        assert source_of(torch.device("cpu")).data_ptr() == plain.get_parameter(name).data_ptr()


@pytest.mark.parametrize(
    "special",
    [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"lora_bias": True}, {"target_modules": ["embed_tokens"]}],
)
def test_an_adapter_that_is_more_is_refused_by_name(model, special):
    config = LoraConfig(**{"r": 4, "target_modules": ["q_proj"], **special})
    with pytest.raises(ValueError, match=r"are no plain A or B of a linear layer .*leave them out of"):
        factors(get_peft_model(naive_step.load(model), config))


def test_another_scale_is_peft_s(model):
    config = LoraConfig(r=4, lora_alpha=8, use_rslora=True, target_modules=["q_proj"])
    assert {low.scale for low in factors(get_peft_model(naive_step.load(model), config)).values()} == {4.0}
