"""`srpo` beside another distribution that installs a package `workflows`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from srpo_verl.launch.srpo_command import check_package, foreign_package
from tests.patience import PROCESS

OURS = Path(__file__).resolve().parents[2]
CODE = "from srpo_verl.launch.srpo_command import main; main()"


def srpo(path: list[Path], *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-P", "-c", CODE, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PROCESS, check=False)


def test_ours_is_run():
    done = srpo([OURS], "--help")
    assert done.returncode == 0
    assert "reproduce" in done.stdout


def test_another_package_that_is_found_first_is_named(tmp_path):
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "__init__.py").write_text("")
    done = srpo([tmp_path, OURS], "--help")
    assert done.returncode == 1
    assert f"another package `workflows` before ours: {tmp_path}/workflows instead of" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_distribution_that_wrote_over_ours_is_named(tmp_path):
    """Both in one folder: its `__init__.py` is there instead of ours and cannot be imported without what it needs."""
    for name in ("__init__.py", "launch/__init__.py", "launch/srpo_command.py"):
        (tmp_path / "srpo_verl" / name).parent.mkdir(exist_ok=True)
        shutil.copy(OURS / "srpo_verl" / name, tmp_path / "srpo_verl" / name)
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "__init__.py").write_text("import what_it_needs_and_we_have_not\n")
    metadata = tmp_path / "other_workflows-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: other-workflows\nVersion: 1.0\n")
    (metadata / "top_level.txt").write_text("workflows\n")
    done = srpo([tmp_path], "--help")
    assert done.returncode == 1
    assert "other-workflows installs a package `workflows` too" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("found", "owners", "says"),
    [
        ([str(OURS / "workflows")], ["srpo-verl"], None),
        ([str(OURS / "workflows")], [], None),
        (["/elsewhere/workflows"], ["srpo-verl"], "/elsewhere/workflows instead of"),
        ([str(OURS / "workflows")], ["srpo-verl", "llama-index-workflows"], "pip uninstall llama-index-workflows"),
    ],
)
def test_what_is_foreign(found, owners, says):
    problem = foreign_package(found, owners)
    assert problem is None if says is None else says in problem


def test_this_environment_has_ours_alone():
    assert check_package() is None
