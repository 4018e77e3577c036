"""The tutorials' packages, made of nothing but what the pages show, are installed and found by their entry points."""

import re
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT
from tests.examples.variant_package import environment, install
from tests.patience import PROCESS


def block(page: str, language: str) -> str:
    """The first one of a tutorial."""
    text = (ROOT / "docs" / "tutorials" / page).read_text()
    return re.search(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[1]


def said_with(page: str, module: str, folder: Path, *arguments: str) -> str:
    """What Python says to `arguments` where the page's module and pyproject.toml are installed."""
    package = folder / "package"
    package.mkdir()
    (package / f"{module}.py").write_text(block(page, "python"))
    (package / "pyproject.toml").write_text(block(page, "toml"))
    done = subprocess.run(
        [sys.executable, *arguments], env=environment(install(folder, package)), cwd=folder,
        capture_output=True, text=True, timeout=PROCESS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_reward_is_found_as_the_page_says(tmp_path):
    said = said_with("own-reward.md", "word_count_reward", tmp_path, "-m", "reward_fns.check", "--sources")
    line = next(line for line in said.splitlines() if line.startswith("word_count "))
    assert line in (ROOT / "docs" / "tutorials" / "own-reward.md").read_text().splitlines()


def test_the_variant_is_found(tmp_path):
    code = (
        "from srpo_verl.config import settings\n"
        "from srpo_verl.training.durable.run_record import foreign_variants\n"
        "print(foreign_variants(settings({'weighting': 'teacher_doubts_it'})))"
    )
    said = said_with("write-a-variant.md", "my_variants", tmp_path, "-c", code)
    assert "my_variants:teacher_doubts_it, my-variants 0.1.0, sha256 " in said
