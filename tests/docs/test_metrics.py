"""docs/metrics.md has every `srpo/...` name that the code logs, and no other."""

import ast
import re
from functools import cache

from srpo_verl.core import PROBLEMS
from tests.docs.pages import ROOT, table_rows

# Beginnings of names, not names.
BEGINNINGS = {"srpo/bad_score/"}


@cache
def logged() -> set[str]:
    """Names in the code, as patterns: what is put into a name when it runs stands as `.+`."""
    found = set()
    for path in (ROOT / "srpo_verl").rglob("*.py"):
        tree = ast.parse(path.read_text())
        parts = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                text = [re.escape(part.value) if isinstance(part, ast.Constant) else ".+" for part in node.values]
                found.add("".join(text))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in parts:
                found.add(re.escape(node.value))
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "marked_timer":
                found.add(f"timing_s/{node.args[0].value}")
    names = {name for name in found if re.fullmatch(r"(srpo|timing_s/srpo_)[\w./+<>-]*", name) and "/" in name}
    return names - BEGINNINGS


def documented() -> set[str]:
    """Names of the first column; `/max` after `srpo/weight/min` is `srpo/weight/max`."""
    found = set()
    for row in table_rows("metrics.md"):
        names = re.findall(r"`([^`]+)`", row[0])
        for name in names:
            found.add(names[0].rpartition("/")[0] + name if name.startswith("/") else name)
    return found


def test_what_is_logged_is_on_the_page():
    pages = documented()
    assert len(logged()) > 40
    assert [pattern for pattern in sorted(logged()) if not any(re.fullmatch(pattern, name) for name in pages)] == []


def test_what_is_on_the_page_is_logged():
    assert [name for name in documented() if not any(re.fullmatch(pattern, name) for pattern in logged())] == []


def test_every_kind_of_bad_score_is_on_the_page():
    assert {f"srpo/bad_score/{kind}" for kind in PROBLEMS} <= documented()
