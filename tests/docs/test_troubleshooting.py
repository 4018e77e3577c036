"""Every sentence that docs/troubleshooting.md quotes is still one that the code prints."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
# A row of a table: the sentence between backticks is the first cell.
SENTENCES = re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)
# What stands for a value that differs from run to run, in the page and in what is gathered of the code.
PLACE = re.compile(r"<[^<>]*>")


@cache
def texts() -> str:
    """All strings of the packages, an f-string's values as `<>`, each on a line of its own."""
    found = []
    for package in ("srpo_verl", "workflows", "reward_fns"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(_part(value) for value in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(text.replace("\n", " ") for text in found)


def _part(value: ast.expr) -> str:
    return value.value if isinstance(value, ast.Constant) else "<>"


def constants(sentence: str) -> list[str]:
    """The parts of a sentence that are always the same."""
    return [part for part in (piece.strip(" ():;,.=") for piece in PLACE.split(sentence)) if part]


def printed(sentence: str) -> bool:
    """Whether one string of the code has all constant parts, in their order."""
    pattern = ".*".join(map(re.escape, constants(sentence)))
    return re.search(pattern, texts()) is not None


@pytest.mark.parametrize("sentence", SENTENCES)
def test_the_sentence_is_printed_by_the_code(sentence):
    assert sum(map(len, constants(sentence))) > 12, "a sentence of placeholders would be found in anything"
    assert printed(sentence)


def test_the_page_has_sentences_of_every_kind_and_a_changed_one_is_not_found():
    assert len(SENTENCES) > 50
    assert not printed("the gradient was NaN or infinite; the updates were skipped once")
    assert not printed("<folder> owns <run>, <what> since <time>")
