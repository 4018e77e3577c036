import json

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from workflows.plan.shapes import KNOWN, ModelShape, UnknownModel, shape_of, shape_of_config

# From the models' cards and the index files of their weights.
PUBLISHED = {
    "Qwen3-0.6B": 596_049_920,
    "Qwen3-1.7B": 1_720_574_976,
    "Qwen3-4B": 4_022_468_096,
    "Qwen3-8B": 8_190_735_360,
    "Qwen3-14B": 14_768_307_200,
    "Qwen3-32B": 32_762_123_264,
    "Qwen2.5-0.5B": 494_032_768,
    "Qwen2.5-1.5B": 1_543_714_304,
    "Qwen2.5-3B": 3_085_938_688,
    "Qwen2.5-7B": 7_615_616_512,
    "Llama-3.1-8B": 8_030_261_248,
    "SmolLM2-135M": 134_515_008,
    "SmolLM2-360M": 361_821_120,
}


@pytest.mark.parametrize("name", KNOWN)
def test_parameters_are_those_published(name):
    assert KNOWN[name].parameters == PUBLISHED[name]


@pytest.mark.parametrize(
    ("kind", "tied", "extra"),
    [
        (Qwen3Config, True, {"head_dim": 24}),
        (Qwen3Config, False, {}),
        (Qwen2Config, False, {}),
        (LlamaConfig, True, {}),
    ],
)
def test_parameters_are_those_of_the_built_model(kind, tied, extra):
    config = kind(
        vocab_size=101,
        hidden_size=48,
        intermediate_size=72,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        **extra,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shape = shape_of_config(json.loads(config.to_json_string(use_diff=False)), "test")
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_flops_and_cache_by_hand():
    shape = ModelShape(hidden=4, layers=2, heads=2, kv_heads=1, head_dim=2, mlp=6, vocab=10, tied=True)
    # Attention 2*4*(4+2) = 48, MLP 3*4*6 = 72, norms 8.
    assert shape.layer_parameters == 128
    assert shape.parameters == 40 + 2 * 128 + 4
    # 2 * (256 + 40) per token; attention 4 * 2 layers * 4 wide * 5 tokens of context.
    assert shape.forward_flops(3, 5) == 3 * (592 + 160)
    # Keys and values of 2 layers, 2 wide, 2 bytes.
    assert shape.kv_bytes(7) == 7 * 16


def test_a_folder_comes_before_the_table(tmp_path):
    folder = tmp_path / "Qwen3-8B"
    folder.mkdir()
    assert shape_of("Qwen/Qwen3-8B-Base") == KNOWN["Qwen3-8B"]
    described = {
        "model_type": "llama",
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 32,
    }
    (folder / "config.json").write_text(json.dumps(described))
    shape = shape_of(str(folder))
    assert (shape.hidden, shape.kv_heads, shape.head_dim, shape.tied) == (8, 2, 4, False)


def test_models_that_cannot_be_planned():
    with pytest.raises(UnknownModel, match="one of Qwen3-0"):
        shape_of("somebody/something")
    with pytest.raises(UnknownModel, match="mixture of experts"):
        shape_of_config({"num_experts": 8}, "config.json")
    with pytest.raises(UnknownModel, match="'hidden_size'"):
        shape_of_config({"num_attention_heads": 8}, "config.json")
