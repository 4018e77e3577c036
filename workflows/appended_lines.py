"""Follows a text file while another process appends to it."""

from __future__ import annotations

from pathlib import Path


class AppendedLines:
    """Lines added since the last look. A line that is not complete yet is left for later."""

    def __init__(self, path: Path):
        self.path = path
        self._offset = 0

    def read_new(self) -> list[bytes]:
        """Complete lines without their ends; none while the file does not exist."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._offset)
            chunk = file.read()
        complete = chunk[: chunk.rfind(b"\n") + 1]
        self._offset += len(complete)
        return complete.splitlines()
