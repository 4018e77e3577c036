"""Grid and site files: what is refused, and in which words."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from workflows.reproduce.spec.cell import cells, select
from workflows.reproduce.spec.grid import Grid
from workflows.reproduce.spec.settings_file import SettingsError, load
from workflows.reproduce.spec.site import Site

GRID = {
    "name": "g",
    "benchmarks": [{"name": "a", "train": "a/train.parquet", "val": "a/test.parquet"}],
    "models": [{"name": "big", "path": "Qwen/Qwen3-8B"}, {"name": "small", "path": "{data}/model"}],
    "methods": [{"name": "srpo"}, {"name": "no_weights", "config": "srpo_routing_only", "models": ["big"]}],
    "seeds": [1, 2],
    "budget": {"hours": [1, 5, 10]},
}
SITE = {"backend": "local", "data": "data", "runs": "runs"}


def read(tmp_path, content, kind=Grid):
    path = tmp_path / "file.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return load(path, kind)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": [1]}, "seed: no such setting; there is: name, benchmarks"),
        ({"seeds": []}, "seeds: "),
        ({"seeds": [1, 1]}, "seeds: 1 is there twice"),
        ({"budget": {}}, "budget: give either hours"),
        ({"budget": {"hours": [1], "steps": [1]}}, "budget: give either hours"),
        ({"methods": [{"name": "dpo"}]}, "method dpo: no config 'dpo'; `config` is one of: advantage_mix, "),
        ({"methods": [{"name": "srpo", "models": ["tiny"]}]}, "models has no tiny; there is: big, small"),
        ({"overrides": ["data.train_batch_size 8"]}, "overrides: 'data.train_batch_size 8' is no Hydra override"),
        ({"benchmarks": [{"name": "a__b", "train": "x", "val": "y"}]}, r"benchmarks[0].name: String should match"),
        ({"benchmarks": [{"name": "a", "train": "x"}]}, "benchmarks[0].val: Field required"),
        ({"acceptance": [{"metric": "accuracy", "within": [1, 0]}]}, "acceptance[0]: `steps` and `within` are"),
        ({"collapse": [{"metric": "accuracy"}]}, "collapse[0]: give at least one of below, above, drop"),
        ({"acceptance": [{"metric": "x", "within": [0, 1], "methods": ["y"]}]}, "check of x: methods has no y"),
    ],
)
def test_mistakes_in_a_grid_are_named(tmp_path, change, words):
    with pytest.raises(SettingsError) as error:
        read(tmp_path, {**GRID, **change})
    assert words in str(error.value)
    assert "file.yaml" in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backend": "pbs"}, "backend: Input should be 'local', 'ray', 'slurm' or 'kubernetes'"),
        ({"backend": "kubernetes"}, "needs a section `kubernetes`"),
        ({"nodes": 2}, "backend local is this machine"),
        ({"slurm": {"queue": "x"}}, "slurm.queue: no such setting"),
    ],
)
def test_mistakes_in_a_site_are_named(tmp_path, change, words):
    with pytest.raises(SettingsError) as error:
        read(tmp_path, {**SITE, **change}, Site)
    assert words in str(error.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere.yaml", Grid)
    with pytest.raises(SettingsError, match="is not YAML"):
        read(tmp_path, "a: [")
    with pytest.raises(SettingsError, match="expected settings"):
        read(tmp_path, "just text")


def test_cells_are_seed_by_seed_and_selected_by_coordinates(tmp_path):
    grid = read(tmp_path, GRID)
    names = [cell.name for cell in cells(grid, tmp_path)]
    one = ["a__big__srpo", "a__big__no_weights", "a__small__srpo"]
    assert names == [f"{name}__s{seed}" for seed in (1, 2) for name in one]
    found = select(cells(grid, tmp_path), ["big s2", "a__small__srpo__s1"])
    assert [cell.name for cell in found] == ["a__small__srpo__s1", "a__big__srpo__s2", "a__big__no_weights__s2"]
    with pytest.raises(ValueError, match=r"'huge' fits no cell\. A cell is named like a__big__srpo__s1"):
        select(cells(grid, tmp_path), ["huge"])


def test_the_command_of_a_cell(tmp_path):
    grid = read(tmp_path, {**GRID, "overrides": ["trainer.test_freq=7"]})
    site = read(tmp_path, {**SITE, "overrides": ["trainer.test_freq=3"], "cpu_only": True, "gpus_per_node": 2}, Site)
    small = cells(grid, site.runs)[2]
    command = small.command(site)
    assert command[1:4] == ["-m", "verl.trainer.main_ppo", "--config-name=srpo"]
    assert command.index("trainer.test_freq=3") < command.index("trainer.test_freq=7")
    for argument in (
        "platform=cpu",
        f"actor_rollout_ref.model.path={site.data}/model",
        f"data.val_files={site.data}/a/test.parquet",
        f"trainer.default_local_dir={site.runs}/a__small__srpo__s1",
        "actor_rollout_ref.rollout.seed=1",
        "trainer.n_gpus_per_node=2",
        "trainer.resume_mode=auto",
        "+ray_kwargs.ray_init.address=local",
    ):
        assert argument in command
    assert not any("total_training_steps" in argument for argument in command)


def test_a_cell_dumps_teacher_prompts_into_its_folder_unless_the_grid_says_none(tmp_path):
    site = read(tmp_path, SITE, Site)
    cell = cells(read(tmp_path, GRID), site.runs)[0]
    assert f"srpo.dump_dir={cell.folder}/teacher_prompts" in cell.command(site)
    none = cells(read(tmp_path, {**GRID, "overrides": ["srpo.dump_dir=null"]}), site.runs)[0].command(site)
    assert [word for word in none if word.startswith("srpo.dump_dir=")] == ["srpo.dump_dir=null"]


def test_cells_that_dump_rollouts_do_not_share_a_place(tmp_path):
    site = read(tmp_path, SITE, Site)
    grid = read(tmp_path, {**GRID, "overrides": ["trainer.rollout_data_dir=/shared/rollouts"]})
    for cell in cells(grid, site.runs):
        command = cell.command(site)
        places = [word for word in command if word.startswith("trainer.rollout_data_dir=")]
        assert places[-1] == f"trainer.rollout_data_dir={cell.folder}/rollouts"
        assert not any(word.startswith("trainer.validation_data_dir=") for word in command)


def test_commands_of_cells_that_start_at_once(tmp_path):
    site = read(tmp_path, {**SITE, "overrides": ["trainer.test_freq=11"]}, Site)
    grid = read(tmp_path, {**GRID, "overrides": ["trainer.save_freq=13"]})
    with ThreadPoolExecutor(4) as threads:
        commands = list(threads.map(lambda cell: cell.command(site), cells(grid, site.runs)))
    assert len(commands) == len({tuple(command) for command in commands}) == 6


def test_the_spec_is_of_the_grid_alone(tmp_path):
    grid = read(tmp_path, GRID)
    here, there = (cells(grid, tmp_path / name)[0] for name in "ab")
    assert here.spec_hash == there.spec_hash
    other = cells(read(tmp_path, {**GRID, "overrides": ["a=1"]}), tmp_path)[0]
    assert other.spec_hash != here.spec_hash
    checked = read(tmp_path, {**GRID, "acceptance": [{"metric": "accuracy", "within": [0, 1]}]})
    assert cells(checked, tmp_path)[0].spec_hash == here.spec_hash
