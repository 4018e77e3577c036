"""The installed package is complete: a wheel of this checkout, in an environment that sees nothing else of it."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("srpo_verl", "workflows", "reward_fns", "hydra_plugins")
# No part of a source distribution: what hosted services read.
NOT_DISTRIBUTED = (".github", ".gitignore")
NOT_SOURCE = shutil.ignore_patterns(".git", ".*_cache", ".venv", "__pycache__", "*.egg-info", "build", "dist", "runs")

pytestmark = pytest.mark.slow


def run(command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def without_checkout():
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: setuptools leaves `build/` behind, and would pack again what lies there."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(REPOSITORY, folder / "source", ignore=NOT_SOURCE)
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    run([sys.executable, "-m", "pip", "wheel", *offline, "-w", folder, folder / "source"])
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    shutil.copytree(REPOSITORY, folder / "source", ignore=NOT_SOURCE)
    script = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    run([sys.executable, "-c", script, folder], cwd=folder / "source")
    (built,) = folder.glob("*.tar.gz")
    return built


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The interpreter of an environment with the wheel, and with the dependencies of the environment of the tests."""
    environment = tmp_path_factory.mktemp("environment")
    run([sys.executable, "-m", "venv", "--without-pip", environment])
    python = environment / "bin" / "python"
    # With a path to a checkout that was built in, pip finds us installed already.
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel]
    run(command, env=without_checkout())
    # A folder named in a .pth is not searched for .pth files, so that an editable install of ours has no effect.
    packages = run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
    Path(packages, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture
def outside(tmp_path):
    """Where and how a command runs: in an empty folder, without a path to the checkout."""
    return {"cwd": tmp_path, "env": without_checkout()}


def test_the_wheel_holds_the_packages_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    packed = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    source = {
        str(path.relative_to(REPOSITORY))
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == source
    assert {Path(name).suffix for name in packed} >= {".yaml", ".j2", ".css", ".js", ".typed"}
    assert any(name.startswith("srpo_verl/cpu/_dist/") for name in packed)


def test_the_source_distribution_holds_what_is_tracked(sdist):
    with tarfile.open(sdist) as archive:
        packed = {member.name.partition("/")[2] for member in archive if member.isfile()}
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if tracked.returncode != 0:
        pytest.skip("no git checkout: what is tracked is not known")
    there = {name for name in tracked.stdout.splitlines() if (REPOSITORY / name).is_file()}
    assert {name for name in there if not name.startswith(NOT_DISTRIBUTED)} <= packed
    assert not [name for name in packed if "__pycache__" in name]


def test_only_the_wheel_is_imported(python, outside):
    names = [*PACKAGES, "laboratory", "tests", "benchmarks", "examples"]
    script = "import importlib.util as u, json, sys; print(json.dumps({n: str(u.find_spec(n)) for n in sys.argv[1:]}))"
    found = json.loads(run([python, "-c", script, *names], **outside))
    for name in PACKAGES:
        assert str(python.parents[1]) in found[name]
    assert not [name for name, spec in found.items() if str(REPOSITORY) in spec and ".venv" not in spec]
    assert found["laboratory"] == "None"


def test_verl_finds_our_config(python, outside):
    config = run([python, "-m", "verl.trainer.main_ppo", "--config-name", "srpo", "--cfg", "job"], **outside)
    assert "adv_estimator: srpo" in config
    assert "topk: 100" in config


def test_every_config_composes(python, outside):
    script = "from workflows.compose_config import *; print([compose_config(n).srpo.topk for n in config_names()])"
    values = run([python, "-c", script], **outside).strip().splitlines()[-1]
    assert len(json.loads(values)) == len(list((REPOSITORY / "srpo_verl" / "config").glob("*.yaml")))


def test_the_demo_builds_its_model_and_data(python, outside, tmp_path):
    run([python, "-m", "workflows.tiny.start", "--out", "tiny", "--train", "20", "--test", "4"], **outside)
    assert {path.name for path in (tmp_path / "tiny").iterdir()} == {
        "manifest.json",
        "model",
        "test.parquet",
        "train.parquet",
    }


@pytest.mark.stack
@pytest.mark.nightly
def test_the_demo_trains(python, outside, tmp_path):
    run([python.with_name("srpo"), "demo", "--steps", "2", "--out", "demo"], **outside)
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert summary["steps"] == 2
    assert 0 < summary["held_out_after"] < 1
