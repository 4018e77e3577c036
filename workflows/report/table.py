"""A table that the page and the Markdown file both show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """Text, an addition in small print, whether it is the best of its column and group, and a hint on hovering.

    A muted first cell sets its whole row back: it is there to compare with.
    """

    text: str
    small: str = ""
    best: bool = False
    hint: str = ""
    muted: bool = False

    @property
    def plain(self) -> str:
        return f"{self.text} {self.small}".strip()


@dataclass(frozen=True)
class Group:
    """Consecutive rows under a heading of their own; no heading if it is empty. A row starts with its header."""

    heading: str
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Table:
    """`columns` name all cells of a row, the row header first. `wide`: cells may be sentences, and wrap."""

    title: str
    columns: list[str]
    groups: list[Group]
    notes: list[str] = field(default_factory=list)
    numeric: bool = True
    wide: bool = False

    @property
    def empty(self) -> bool:
        return not any(group.rows for group in self.groups)

    def markdown(self) -> str:
        """A pipe table; the groups' headings are rows in bold."""
        lines = [f"### {self.title}", "", _row(self.columns), _row(["---"] * len(self.columns))]
        for group in self.groups:
            if group.heading:
                lines.append(_row([f"**{_escaped(group.heading)}**", *[""] * (len(self.columns) - 1)]))
            for row in group.rows:
                texts = [_escaped(cell.plain) for cell in row]
                lines.append(
                    _row([f"**{text}**" if cell.best else text for text, cell in zip(texts, row, strict=True)])
                )
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes)]).rstrip() + "\n"


def _row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
