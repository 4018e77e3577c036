"""Where the tests of this folder run: on a CUDA GPU, or in a rehearsal (`--platform cpu`) with small sizes on a CPU."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest
import torch

from tests.core.peak_memory import peak_bytes

CUDA = torch.cuda.is_available()
REHEARSAL = os.environ.get("SRPO_TEST_PLATFORM") == "rehearsal"
DEVICE = "cuda" if CUDA else "cpu"
on_the_device = pytest.mark.skipif(not (CUDA or REHEARSAL), reason="no CUDA GPU is visible")
needs_cuda = pytest.mark.skipif(not CUDA, reason="no CUDA GPU is visible")


def size(full: int, small: int) -> int:
    """`full` on a GPU, `small` in a rehearsal."""
    return full if CUDA else small


def synchronize() -> None:
    if CUDA:
        torch.cuda.synchronize()


def seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """The shortest of `repeats` calls, after one that warms up."""
    call()
    found = []
    for _ in range(repeats if CUDA else 1):
        synchronize()
        started = time.perf_counter()
        call()
        synchronize()
        found.append(time.perf_counter() - started)
    return min(found)


def peak(call: Callable[[], object]) -> float:
    """Bytes at the highest point of `call`, beyond what is allocated before."""
    if not CUDA:
        return float(peak_bytes(call))
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated() - before)
