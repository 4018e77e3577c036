import subprocess
import sys

from typer.testing import CliRunner

from workflows.cli import COMMANDS, app


def test_help_names_every_command_and_imports_none():
    code = (
        "import sys\nfrom workflows.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'verl' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert all(name in result.stdout for name in COMMANDS)


def test_an_unknown_command_is_an_error():
    result = CliRunner().invoke(app, ["tarin"])
    assert result.exit_code == 2
    assert "tarin" in result.output
