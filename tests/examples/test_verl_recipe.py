"""The recipe's folder: its script composes, with the version of verl that it names."""

import os
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from workflows.compose_config import compose_config

RECIPE = Path(__file__).resolve().parents[2] / "examples" / "verl_recipe" / "srpo"


@pytest.mark.parametrize("method", ["srpo", "grpo"])
def test_the_script_starts_verl_with_overrides_that_compose(method, tmp_path):
    stand_in = tmp_path / "python3"
    stand_in.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "METHOD": method, "GPUS": "4"}
    command = ["bash", RECIPE / "run_srpo.sh", "trainer.nnodes=2"]
    said = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()
    assert said[:4] == ["-m", "verl.trainer.main_ppo", "--config-name", method]
    config = compose_config(method, said[4:])
    assert (config.trainer.n_gpus_per_node, config.trainer.nnodes) == (4, 2)
    assert config.trainer.default_local_dir == f"runs/{method}"


def test_the_version_is_the_one_that_is_tested():
    lines = (RECIPE / "REQUIRED_VERL.txt").read_text().splitlines()
    required = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert required["PIP_INSTALL"].endswith(f"=={metadata.version('verl')}")
    assert required["RECIPE_FOLDER"] == RECIPE.name
