"""The locked sets are installed with the command that the documents give."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("requirements/*.md"),
    *ROOT.glob("requirements/*.txt"),
]


def test_a_locked_set_is_installed_without_dependencies():
    """The lists are complete; older versions of pip refuse `pydantic[email]`, which a package needs, beside hashes."""
    commands = [
        command
        for document in DOCUMENTS
        for command in re.findall(r"pip install ([^`&\n]*-r requirements/[cg]pu\.txt)", document.read_text())
    ]
    assert any("gpu.txt" in command for command in commands)
    assert [command for command in commands if "--no-deps" not in command] == []


@pytest.mark.parametrize("name", ["cpu.txt", "gpu.txt"])
def test_every_package_of_a_set_is_pinned_to_its_files(name):
    lines = (ROOT / "requirements" / name).read_text().replace("\\\n", " ").splitlines()
    packages = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert len(packages) > 100
    assert [line for line in packages if not re.match(r"[\w.-]+==\S+ .*--hash=sha256:", line)] == []


# Stands for the environment's Python: pip that says what it does, and fails when it is told to.
PYTHON = """\
#!/bin/sh
case "$*" in
    *"install"*"-r requirements/cpu.txt") echo "Collecting numpy"; exit ${PIP_FAILS:-0} ;;
    *sysconfig*) echo . ;;
esac
"""


def make_venv(folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """requirements/make_venv.sh in a repository that has one package and an interpreter that installs nothing."""
    (folder / "requirements").mkdir()
    shutil.copy(ROOT / "requirements" / "make_venv.sh", folder / "requirements")
    (folder / "requirements" / "cpu.txt").write_text("torch==2.13.0\n")
    (folder / "pyproject.toml").touch()
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    command = [str(folder / "requirements" / "make_venv.sh")]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def test_what_pip_does_is_in_a_log_that_is_named(tmp_path):
    done = make_venv(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "minutes" in done.stdout
    assert "log: .venv/install.log" in done.stdout
    assert (tmp_path / ".venv" / "install.log").read_text() == "Collecting numpy\n"


def test_an_installation_that_fails_says_why_and_is_not_taken_for_done(tmp_path):
    done = make_venv(tmp_path, PIP_FAILS="1")
    assert (done.returncode, done.stderr) == (1, "Collecting numpy\n")
    assert not (tmp_path / ".venv" / ".srpo-lock").exists()
