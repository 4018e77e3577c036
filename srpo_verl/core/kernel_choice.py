"""Whether passes over logits are Triton kernels (`kernels.py`) or PyTorch's operations."""

from __future__ import annotations

import functools
import importlib
import os
from types import ModuleType

import torch

__all__ = ["choose_kernels", "kernels_for"]

_wanted = True


def choose_kernels(wanted: bool) -> str:
    """Say for this process whether kernels are wanted where they can run. Returns which are used on CUDA, in words.

    Raises:
        RuntimeError: they are wanted on a machine with a GPU, and Triton is not there.
    """
    global _wanted
    _wanted = wanted
    if not torch.cuda.is_available() and not _interpreted():
        return "PyTorch's operations: no CUDA GPU is visible"
    if not wanted:
        return "PyTorch's operations: srpo.kernels=false"
    return f"kernels of Triton {_kernels().triton.__version__}"


def kernels_for(logits: torch.Tensor) -> ModuleType | None:
    """The module of kernels if they are to take these logits, else None.

    With TRITON_INTERPRET=1 they take a CPU's as well: Triton's interpreter then runs them, a thousand times slower.
    """
    return _kernels() if _wanted and (logits.is_cuda or _interpreted()) else None


@functools.cache
def _kernels() -> ModuleType:
    try:
        return importlib.import_module("srpo_verl.core.kernels")
    except ImportError as error:
        raise RuntimeError(
            f"srpo.kernels=true takes Triton, which cannot be imported ({error}): install the triton that belongs to "
            "your torch, or set srpo.kernels=false"
        ) from error


@functools.cache
def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
