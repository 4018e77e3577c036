"""What a rank raised, kept in its process until somebody asks.

Where one rank raises, the others wait for it in their next collective operation, and verl waits for them in the order
of the ranks: what was raised would be seen only when NCCL gives up, after minutes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])

_raised: str | None = None


def raised() -> str | None:
    """Type and message of what a method of this process raised; the first, which others may have followed from."""
    return _raised


def failure_kept(method: Method) -> Method:
    """Decorator of a remote method that all ranks run together, and whose failure ends the run."""

    @functools.wraps(method)
    def kept(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except BaseException as error:
            _keep(f"{method.__name__} raised {type(error).__name__}: {' '.join(str(error).split())}")
            raise

    return kept  # type: ignore[return-value]


# By itself: Ray sends decorated methods of a class from no module by value, and with them a copy of their globals.
def _keep(sentence: str) -> None:
    global _raised
    _raised = _raised or sentence
