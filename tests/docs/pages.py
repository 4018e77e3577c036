"""What the tests of the documentation share: tables of a page, and the modules that make the site."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def table_rows(page: str) -> list[list[str]]:
    """The cells of every row of every table of docs/`page`, heads and rules left out."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    rows = []
    for number, line in enumerate(lines):
        head = number + 1 < len(lines) and lines[number + 1].startswith("|--")
        if line.startswith("|") and not line.startswith("|--") and not head:
            rows.append([cell.strip() for cell in line.strip().strip("|").split(" | ")])
    return rows


def site_module(name: str) -> ModuleType:
    """docs/site/`name`.py, which MkDocs loads by its path as well."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "site" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
