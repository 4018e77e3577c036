"""The site's files are the repository's, under the paths that they have there: a link that works on GitHub works here.

Start: README.md, every page of docs/ and what the navigation names. What these link to comes along: pages as pages,
source files as text. A link to what does not exist stays one, of which MkDocs warns.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

LINK = re.compile(r"\]\(\s*<?([^)\s>#?]+)")
AS_THEY_ARE = {".md", ".svg", ".png", ".css"}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Everything of docs/ under its path in the repository instead, with what the pages link to."""
    root = Path(config.config_file_path).parent.resolve()
    kept = [file for file in files if file.src_dir != config.docs_dir]
    found = reached(root, ["README.md", *_pages(config.nav)])
    return Files([*kept, *(_file(path, root, config) for path in found)])


def reached(root: Path, named: list[str]) -> list[str]:
    """Paths below `root` of the pages of docs/, the named ones and, from page to page, all that they link to."""
    ahead = [root / name for name in named if (root / name).is_file()]
    ahead += [*(root / "docs").rglob("*.md"), *(root / "docs" / "site").glob("*.css")]
    found: set[Path] = set()
    while ahead:
        path = ahead.pop()
        if path in found:
            continue
        found.add(path)
        targets = LINK.findall(path.read_text()) if path.suffix == ".md" else []
        linked = [(path.parent / unquote(target)).resolve() for target in targets if "://" not in target]
        ahead += [target for target in linked if target.is_file() and target.is_relative_to(root)]
    return sorted(path.relative_to(root).as_posix() for path in found)


def _pages(nav: object) -> list[str]:
    if isinstance(nav, dict):
        nav = list(nav.values())
    if isinstance(nav, list):
        return [page for entry in nav for page in _pages(entry)]
    return [nav] if isinstance(nav, str) else []


def _file(path: str, root: Path, config: MkDocsConfig) -> File:
    # A browser shows text, and saves a file of Python.
    shown = None if Path(path).suffix in AS_THEY_ARE else f"{path}.txt"
    return File(path, str(root), config.site_dir, use_directory_urls=False, dest_uri=shown)
