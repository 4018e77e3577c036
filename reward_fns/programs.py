"""Find the program in a completion: which fenced block is the answer.

Line by line, hence linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from reward_fns.mathlayer.extract import after_thinking

_PYTHON = frozenset({"python", "py", "python3", "python2", "pypy", "pypy3"})
_MAX_PROGRAM = 200_000
_STARTS = re.compile(r"^(?:def |class |import |from \w+ import |print\(|@|async def )", re.MULTILINE)
_READS = re.compile(r"\binput\b|\bstdin\b|\bopen\(0|\bos\.read\b|\bfileinput\b")


def extract_program(solution: str, names: Collection[str] = ()) -> str:
    """The program of a completion; "" when there is none.

    Of the closed Python blocks (of those without a language, if there are none) after any thinking, it is the last that
    defines one of ``names``; without names, the last that reads its input if any does; else the last. Text without any
    fence that looks like Python is a program as it stands.
    """
    text = after_thinking(solution).lstrip("\ufeff").replace("\r\n", "\n")
    if "```" not in text and "~~~" not in text:
        program = text.strip() if _STARTS.search(text) else ""
    else:
        blocks = list(_blocks(text))
        python = [body for language, body in blocks if language in _PYTHON]
        program = _choose(python or [body for language, body in blocks if not language], names)
    program = program.lstrip("\ufeff")
    return program if program.strip() and len(program) <= _MAX_PROGRAM else ""


def _choose(blocks: list[str], names: Collection[str]) -> str:
    if names:
        words = "|".join(map(re.escape, sorted(names)))
        pattern = re.compile(
            rf"^[ \t]{{0,8}}(?:async )?def (?:{words})\b|^(?:{words})\s?[:=]|^(?:from|import) .*\b(?:{words})\b", re.M
        )
    else:
        pattern = _READS
    return next((body for body in reversed(blocks) if pattern.search(body)), blocks[-1] if blocks else "")


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """The language and body of each closed block; one is closed by a fence of the same character, at least as long."""
    opened = indent = ""
    language, body = "", []
    for line in text.split("\n"):
        fence = _fence(line)
        if fence is None:
            body.append(line)
            continue
        mark, info = fence
        if not opened:
            opened, language, body = mark, info, []
            indent = line[: len(line) - len(line.lstrip())]
        elif mark[0] == opened[0] and len(mark) >= len(opened) and not info:
            yield language, "\n".join(_unindented(body, indent)).strip("\n")
            opened = ""
        elif info in _PYTHON and not language:  # a stray fence before the real one
            opened, language, body = mark, info, []
            indent = line[: len(line) - len(line.lstrip())]
        else:
            body.append(line)


def _unindented(body: list[str], indent: str) -> list[str]:
    """The lines of a block without the indentation of its fence (as in a list), where all of them have it."""
    if not all(line.startswith(indent) for line in body if line.strip()):
        return body
    return [line[len(indent) :] for line in body]


def _fence(line: str) -> tuple[str, str] | None:
    """The mark and the language of a line that is a fence."""
    stripped = line.strip(" \t\r")
    mark = stripped[: len(stripped) - len(stripped.lstrip(stripped[:1]))] if stripped[:3] in ("```", "~~~") else ""
    info = stripped[len(mark) :].strip()
    if not mark or "`" in info:
        return None
    word = re.match(r"[\w+#.-]*", info)
    return mark, word.group().lower() if word else ""
