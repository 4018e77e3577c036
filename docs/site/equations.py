r"""LaTeX between dollar signs becomes MathML when the site is built: nothing is fetched, no script runs.

`\tag{3}` is the number of an equation, as on GitHub.
"""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert

# What pymdownx.arithmatex makes of it with `generic: true`.
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
TAG = re.compile(r"\\tag\{(\w+)\}")
COMMAND = re.compile(r"<m\w+[^>]*>(\\\w+)<")


def on_page_content(html: str, **_: Any) -> str:
    """Each formula as MathML. Raises ValueError for a command of LaTeX that has no MathML."""
    return FORMULA.sub(lambda found: mathml(unescape(found[2]), block=found[1] == "div"), html)


def mathml(latex: str, *, block: bool) -> str:
    """The formula as an element: one of a line of its own with its number beside it."""
    numbers = TAG.findall(latex)
    formula = convert(TAG.sub("", latex).strip(), display="block" if block else "inline")
    if unknown := COMMAND.findall(formula):
        raise ValueError(f"latex2mathml does not know {', '.join(unknown)}: write {latex!r} without")
    if not block:
        return formula
    number = f'<span class="equation-number">({numbers[0]})</span>' if numbers else ""
    return f'<div class="equation"><div>{formula}</div>{number}</div>'
