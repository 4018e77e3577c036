"""What has been graded, one line per question, so that a killed evaluation goes on where it was.

settings.json   what the answers depend on; another evaluation in the same folder is refused
items.jsonl     {"number", "data_source", "index", "samples": [...]} in the order in which they were graded
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from srpo_verl.base.files import write_atomically


class SettingsDifferError(ValueError):
    """The folder holds the answers of another evaluation."""


class Journal:
    """The items of one evaluation in `folder`. `done` maps the number of a question to its item.

    `may_write` is called before every write, and raises if the folder is another evaluation's by now.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, may_write: Callable[[], object] = lambda: None):
        self._may_write = may_write
        folder.mkdir(parents=True, exist_ok=True)
        self.items = folder / "items.jsonl"
        _agree(folder / "settings.json", json.loads(json.dumps(settings)), started=self.items.exists())
        self.done = {int(item["number"]): item for item in self._read()}

    def append(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Durable on return.

        Raises:
            OSError: it cannot be written, for instance because the disk is full; what was there before is kept.
        """
        new = [dict(item) for item in items]
        self._may_write()
        try:
            with self.items.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(item, ensure_ascii=False) + "\n" for item in new)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(
                error.errno,
                f"{self.items} could not be written: {error.strerror}. The {len(self.done)} questions before are kept: "
                "mend it and give the same command again",
            ) from error
        self.done.update({int(item["number"]): item for item in new})

    def _read(self) -> list[dict[str, Any]]:
        """Complete lines; a last line that was cut off by a kill is removed from the file."""
        if not self.items.exists():
            return []
        content = self.items.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self.items, len(whole))
        try:
            return [json.loads(line) for line in whole.split(b"\n") if line]
        except ValueError as error:
            raise ValueError(f"{self.items} is damaged ({error}): move it away to evaluate again") from error


def _agree(file: Path, settings: dict[str, Any], *, started: bool) -> None:
    if started and file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        different = sorted(key for key in before.keys() | settings.keys() if before.get(key) != settings.get(key))
        if different:
            said = "; ".join(f"{key}: {before.get(key)!r} there, {settings.get(key)!r} now" for key in different)
            raise SettingsDifferError(f"{file.parent} holds another evaluation ({said}). Name another --out")
        return
    write_atomically(file, json.dumps(settings, indent=2) + "\n")


def fingerprint(path: Path) -> str:
    """Of a data file: all of it. Of a model's folder: names, sizes, and both ends of its large files."""
    digest = hashlib.sha256()
    if path.is_file():
        digest.update(path.read_bytes())
        return digest.hexdigest()
    edge = 1 << 20
    for file in sorted(file for file in path.iterdir() if file.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as content:
            digest.update(content.read(edge))
            content.seek(max(size - edge, 0))
            digest.update(content.read(edge))
    return digest.hexdigest()
