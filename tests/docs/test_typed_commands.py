"""The commands of the start pages and tutorials: commands, options, config keys, modules and files exist.

`compose` refuses an unknown config, an unknown key and a word that does not parse; nothing is started.
"""

import importlib.util
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import typer

from tests.compose import compose
from workflows.cli import COMMANDS
from workflows.compose_config import ConfigError

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(ROOT / "docs" / "start").glob("*.md"), *(ROOT / "docs" / "tutorials").glob("*.md")])
# Other people's programs, and the shell's own words; `make` is looked up in the Makefile.
OTHERS = {"git", "cd", ".", "export", "pip", "ray", "cp", "python3.12", "make"}
OURS = ("examples/", "workflows/", "laboratory/", "requirements/")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """The words of every command, without variables that are set for it."""
    found = []
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split("&&"):
                words = shlex.split(part)
                while words and re.fullmatch(r"[A-Za-z_]+=.*", words[0]):
                    words.pop(0)
                found += [words] if words else []
    return found


def problem(words: list[str]) -> str:
    """What is wrong with a command, "" if nothing is."""
    program, *rest = words
    missing = [word for word in rest if word.startswith(OURS) and not (ROOT / word).exists()]
    if missing:
        return f"there is no {missing[0]}"
    if program == "srpo":
        return _srpo(*rest)
    if program == "python" and rest[0] == "-m":
        return _module(rest[1], rest[2:])
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return "" if rest[0] in targets else f"no target {rest[0]}"
    return "" if program in OTHERS else f"an unknown program {program}"


def _srpo(name: str, *rest: str) -> str:
    if name not in COMMANDS:
        return f"no command {name}"
    command = typer.main.get_command(import_module(COMMANDS[name][0]).app)
    flags = {word: option for option in command.params for word in option.opts if word.startswith("-")}
    words, plain, config = list(rest), [], "srpo_tiny"
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            plain.append(word)
        elif word not in flags:
            return f"srpo {name} has no option {word}"
        elif not getattr(flags[word], "is_flag", False):
            value = words.pop(0)
            config = value if word == "--config-name" else config
    if name in ("train", "plan", "doctor"):
        config, plain = (plain[0], plain[1:]) if plain else (None, [])
    return _composes(config, plain) if config and name in ("train", "plan", "doctor", "demo") else ""


def _module(name: str, rest: list[str]) -> str:
    if importlib.util.find_spec(name) is None:
        return f"no module {name}"
    if name != "verl.trainer.main_ppo":
        return ""
    return _composes(rest[rest.index("--config-name") + 1], [word for word in rest if "=" in word])


def _composes(config: str, overrides: list[str]) -> str:
    try:
        compose(str(ROOT / config) if "/" in config else config, overrides, resolve=False)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_the_page_can_be_typed(page):
    found = commands(page)
    assert found
    assert [(" ".join(words), wrong) for words in found if (wrong := problem(words))] == []


@pytest.mark.parametrize(
    "command",
    [
        "srpo dance",
        "srpo demo --stepz 5",
        "srpo train srpoo --out x",
        "srpo train srpo --out x srpo.weightings=gap",
        "python -m workflows.nothing",
        "python -m verl.trainer.main_ppo --config-name srpo srpo.nothing=1",
        "make nothing",
        "srpo reproduce examples/paper/nothing.yaml --site x",
        "sudo reboot",
    ],
)
def test_a_command_that_cannot_be_typed_is_found(command):
    assert problem(shlex.split(command))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem)
def test_the_python_of_the_page_compiles_and_imports_what_exists(page):
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")
        for module, names in re.findall(r"^from ([\w.]+) import (.+)$", block, re.MULTILINE):
            for name in names.split(","):
                assert hasattr(import_module(module), name.strip()), (module, name)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "docs" / "troubleshooting.md"], ids=lambda page: page.stem)
def test_links_lead_to_files_and_headings(page):
    links = re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", page.read_text())
    assert links
    for path, heading in links:
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE) if heading else []
        slugs = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
        assert not heading or heading in slugs, (path, heading)
