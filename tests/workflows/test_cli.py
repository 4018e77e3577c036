import subprocess
import sys
from importlib import metadata

from typer.testing import CliRunner

from tests.patience import PROCESS
from workflows.cli import COMMANDS, app
from workflows.version import checkout_commit


def test_help_names_every_command_and_imports_none():
    code = (
        "import sys\nfrom workflows.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'verl' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PROCESS)
    assert result.returncode == 0, result.stderr
    assert all(name in result.stdout for name in COMMANDS)


def test_an_unknown_command_is_an_error():
    result = CliRunner().invoke(app, ["tarin"])
    assert result.exit_code == 2
    assert "tarin" in result.output


def test_the_version_names_what_is_installed():
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith(f"srpo_verl {metadata.version('srpo-verl')}, ")
    assert f"verl {metadata.version('verl')}, torch {metadata.version('torch')}" in result.output
    assert f"Python {sys.version.split()[0]}\n" in result.output


def test_the_commit_of_a_checkout(tmp_path):
    assert checkout_commit(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert checkout_commit(tmp_path) == head[:12]
    (tmp_path / "file").touch()
    assert checkout_commit(tmp_path) == f"{head[:12]}+"
