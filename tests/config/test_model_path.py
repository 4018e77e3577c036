import pytest

from srpo_verl.config.model_path import missing_folder
from tests.compose import compose


def missing(*overrides, config="srpo"):
    return missing_folder(compose(config, [*overrides, "platform=cpu"]))


def test_a_name_on_the_hub_is_no_folder(tmp_path):
    for path in ("Qwen/Qwen3-8B", "gpt2", "hdfs://host/a/b", tmp_path):
        assert missing(f"actor_rollout_ref.model.path={path}") is None


@pytest.mark.parametrize("path", ["/nowhere", "./nowhere", "runs/tiny/model"])
def test_a_folder_that_is_not_there(path):
    said = f"actor_rollout_ref.model.path={path}: there is no such folder"
    assert missing(f"actor_rollout_ref.model.path={path}") == said


@pytest.mark.parametrize(
    ("config", "folder", "builder"),
    [
        ("srpo_tiny", "runs/nowhere", "workflows.tiny.start"),
        ("srpo_tiny", "nowhere", "workflows.tiny.start"),
        ("srpo_agent_tiny", "/nowhere", "workflows.tiny_agent.start"),
    ],
)
def test_the_tiny_models_folder_is_made_or_named(config, folder, builder):
    said = missing(f"tiny.folder={folder}", config=config)
    assert (
        f"model.path={folder}/model: there is no such folder: make it by `python -m {builder} --out {folder}`" in said
    )
    assert "`srpo demo` leaves it: tiny.folder=" in said
