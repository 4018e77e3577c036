"""Recorded values as short texts, and how two records are compared.

A tensor is `#digest norm entries...`: the digest of its bytes decides bit for bit, the numbers make a difference
readable and can be compared to a tolerance where arithmetic is not the same. Numbers are hexadecimal floats, exact.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

# Where torch or processor differ: |found - golden| <= absolute + relative |golden|, by step. Adam divides a gradient by
# its size, so what is rounding in the first step moves weights in the second. Ten times what kernels without AVX-512
# or without any vector instructions were seen to differ by.
TOLERANCES = ((1e-6, 1e-4), (1e-4, 5e-3))


def number(value: float) -> str:
    """The float exactly, without trailing zeros; `float.fromhex` reads it."""
    digits, sign, exponent = float(value).hex().partition("p")
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return digits + sign + exponent


def numbers(values: Mapping[str, float]) -> dict[str, str]:
    return {name: number(values[name]) for name in sorted(values)}


def tensor(value: torch.Tensor | Sequence[torch.Tensor], *, entries: int = 2) -> str:
    """One tensor, or ragged rows whose shapes count too; the entries shown are evenly spaced."""
    rows = [value] if isinstance(value, torch.Tensor) else list(value)
    digest = hashlib.sha256(str([tuple(row.shape) for row in rows]).encode())
    for row in rows:
        digest.update(row.detach().contiguous().numpy().tobytes())
    flat = torch.cat([row.detach().reshape(-1) for row in rows]).double()
    places = torch.linspace(0, flat.numel() - 1, entries).long() if flat.numel() else []
    shown = [torch.linalg.vector_norm(flat).float(), *flat[places]]
    return " ".join([f"#{digest.hexdigest()[:10]}", *(number(float(entry)) for entry in shown)])


def integers(value: torch.Tensor) -> str:
    return " ".join(map(str, value.long().tolist()))


def compare(golden: Any, found: Any, *, exact: bool) -> list[str]:
    """One line per value that differs, with its path and both values."""
    ours, theirs = dict(_leaves(golden, "")), dict(_leaves(found, ""))
    lines = []
    for path in dict.fromkeys([*ours, *theirs]):
        old, new = ours.get(path), theirs.get(path)
        if old == new:
            continue
        if old is None or new is None:
            lines.append(f"{path}: {'is new' if old is None else 'is gone'}")
        elif exact or not _close(old, new, TOLERANCES["step 1/" in path]):
            lines.append(f"{path}: {_readable(old)} -> {_readable(new)}")
    return lines


def _leaves(node: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, f"{path}/{key}" if path else str(key))
    else:
        yield path, str(node)


def _close(old: str, new: str, tolerance: tuple[float, float]) -> bool:
    """Whether all numbers are close; digests say nothing then. Other texts have to be equal."""
    left, right = old.split(" "), new.split(" ")
    return len(left) == len(right) and all(
        one == other
        or (one[0] == other[0] == "#")
        or (_is_number(one) and _is_number(other) and _near(float.fromhex(one), float.fromhex(other), tolerance))
        for one, other in zip(left, right, strict=True)
    )


def _near(old: float, new: float, tolerance: tuple[float, float]) -> bool:
    absolute, relative = tolerance
    return math.isfinite(new) and abs(new - old) <= absolute + relative * abs(old)


def _is_number(word: str) -> bool:
    return word.lstrip("-").startswith("0x")


def _readable(text: str) -> str:
    """Hexadecimal floats in decimal, with enough digits to tell any two apart."""
    words = [repr(float.fromhex(word)) if _is_number(word) else word for word in text.split(" ")]
    return " ".join(words) if text else "(empty)"
