"""A model's folder that a download or a conversion left half done is refused before Ray starts."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from srpo_verl.config.model_files import model_config, weight_problems
from tests.training import tiny_model


@pytest.fixture
def model(tmp_path):
    return tiny_model.build(tmp_path / "model")


def problems(folder):
    return list(weight_problems(str(folder)))


def test_a_whole_model(model):
    assert problems(model) == []
    assert model_config(str(model))["vocab_size"] > 0


def test_a_name_on_the_hub_is_not_looked_into():
    assert (problems("owner/model"), model_config("owner/model")) == ([], {})


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_file_of_weights_that_ends_early(model, keep):
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    (problem,) = problems(model)
    assert problem.startswith(f"{file} is damaged or not whole (")
    assert problem.endswith("finish the download or the conversion")


def test_a_pointer_of_git_lfs(model):
    (model / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\nsize 12345\n")
    assert len(problems(model)) == 1


def test_shards_that_are_missing(tmp_path):
    names = [f"model-0000{n}-of-00005.safetensors" for n in range(1, 6)]
    save_file({"w": torch.zeros(2)}, tmp_path / names[0])
    index = {"weight_map": {f"w{n}": name for n, name in enumerate(names)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (problem,) = problems(tmp_path)
    assert f"lacks 4 files of its weights ({', '.join(names[1:4])}, ...)" in problem
    for name in names[1:]:
        shutil.copy(tmp_path / names[0], tmp_path / name)
    assert problems(tmp_path) == []


def test_a_folder_without_weights(tmp_path):
    assert "has no weights" in problems(tmp_path)[0]
    (tmp_path / "pytorch_model.bin").write_bytes(b"not looked into")
    assert problems(tmp_path) == []


@pytest.mark.parametrize(("text", "says"), [("{", r"config\.json is no JSON"), ("[]", "holds no JSON object")])
def test_a_damaged_description(tmp_path, text, says):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=says):
        model_config(str(tmp_path))
