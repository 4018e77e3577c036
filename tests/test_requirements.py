"""The locked sets are installed with the command that the documents give."""

import re
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
