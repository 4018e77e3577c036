"""docs/configuration.md has every key of `srpo.*` with its default, and no other key."""

import re

import yaml
from omegaconf import DictConfig, OmegaConf

from srpo_verl.config import SRPOConfig
from tests.docs.pages import ROOT, table_rows

# What the page says in words instead: long texts.
IN_WORDS = {"teacher.template", "teacher.sections"}


def schema(node: DictConfig, prefix: str = "") -> dict[str, object]:
    """Default by key; a free node is one key."""
    found = {}
    for key, value in node.items():
        if isinstance(value, DictConfig) and len(value):
            found |= schema(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return found


def documented() -> dict[str, str]:
    """The cell of the default by key, of the tables of the section `srpo.*`."""
    page = (ROOT / "docs" / "configuration.md").read_text()
    section = page[page.index("## `srpo.*`") : page.index("\n## What the check before Ray")]
    rows = [row for row in table_rows("configuration.md") if len(row) == 3 and f"| {row[0]} | {row[1]} |" in section]
    found = {row[0].strip("`"): row[1] for row in rows}
    assert len(found) == len(rows), "a key stands there twice"
    return found


def test_every_key_is_on_the_page_and_no_other():
    assert sorted(documented()) == sorted(schema(OmegaConf.structured(SRPOConfig)))


def test_the_defaults_are_those_of_the_schema():
    defaults = schema(OmegaConf.structured(SRPOConfig))
    told = {key: yaml.safe_load(cell.strip("`")) for key, cell in documented().items() if key not in IN_WORDS}
    assert told == {key: value for key, value in defaults.items() if key not in IN_WORDS}


def test_every_key_that_any_page_mentions_exists():
    known = schema(OmegaConf.structured(SRPOConfig))
    nodes = {key[: match.start()] for key in known for match in re.finditer(r"\.", key)}
    free = ("options.", "teacher.sections.")
    unknown = []
    for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/README.md")]:
        for key in re.findall(r"(?<![\w/.\[\"'])srpo\.([a-z_]+(?:\.[a-z_]+)*)(?![\w(]|\.[a-z])", path.read_text()):
            if key not in known and key not in nodes and not key.startswith(free):
                unknown.append(f"{path.name}: srpo.{key}")
    assert unknown == []
