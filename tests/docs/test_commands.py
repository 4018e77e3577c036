"""The page of commands that the site shows has every command and option of `srpo`; the other pages mention no other."""

import re

import pytest

from tests.docs.pages import ROOT, site_module
from workflows.cli import COMMANDS

commands = site_module("commands")


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    """By command, its part of the page."""
    parts = re.split(r"^## srpo ([\w-]+)$", commands.commands(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def options(name: str) -> set[str]:
    return {
        option for parameter in commands.command(name).params for option in [*parameter.opts, *parameter.secondary_opts]
    }


def test_every_command_has_a_section(sections):
    assert list(sections) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_and_its_help_is_there(sections, name):
    for parameter in commands.command(name).params:
        row = [line for line in sections[name].splitlines() if line.startswith(("| `--", "| `-", "| `"))]
        names = [option for option in parameter.opts if option.startswith("-")]
        assert all(any(f"`{option}`" in line for line in row) for option in names)
        assert not parameter.help or any(parameter.help.split()[0] in line for line in row)


def test_the_page_has_the_mark():
    assert commands.MARK in (ROOT / commands.PAGE).read_text().splitlines()


def test_pages_mention_only_options_that_exist():
    unknown = []
    for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/README.md")]:
        for name, rest in re.findall(
            r"(?:^ *|`)srpo ([a-z]+)((?: [^`\n#;&|]*)?)", path.read_text(), flags=re.MULTILINE
        ):
            if name not in COMMANDS:
                unknown.append(f"{path.name}: srpo {name}")
                continue
            given = set(re.findall(r"(?<=\s)--[a-z-]+(?![\w.])", rest))
            unknown += [f"{path.name}: srpo {name} {option}" for option in given - options(name) - {"--help"}]
    assert unknown == []
