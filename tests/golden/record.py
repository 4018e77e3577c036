"""Everything that is golden, computed now; `python -m tests.golden.record` rewrites `golden.json` with it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.golden import steps, text, values
from tests.golden.cases import CASES
from tests.training import tiny_model
from tests.training.worker_process import run_ranks

PATH = Path(__file__).with_name("golden.json")
_SHOWN = 40


def machine() -> dict[str, str]:
    """Arithmetic is the same, bit for bit, only where all of these are."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu": names[0] if names else "unknown",
    }


def compute(folder: Path, cases: Sequence[str] = tuple(CASES)) -> dict[str, Any]:
    """Steps and texts of this code; the steps in one process of one thread, the tiny model in `folder`."""
    model = tiny_model.build(folder)
    found = run_ranks(steps.run_cases, 1, model, {"cases": list(cases), "model": str(model)})
    return {"steps": found, "text": text.compute()}


def read() -> dict[str, Any]:
    return json.loads(PATH.read_text())


def main() -> None:
    before = read() if PATH.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        found = {"header": {**machine(), "commit": _commit()}, **compute(Path(folder))}
    PATH.write_text(json.dumps(found, indent=0, ensure_ascii=False, separators=(",", ":")) + "\n")
    lines = values.compare(before, found, exact=True)
    print("\n".join(lines[:_SHOWN]) if before else "there was no record")
    print(f"{len(lines)} values differ from the record before, in {', '.join(_parts(lines)) or 'no part'}")


def _parts(lines: Sequence[str]) -> list[str]:
    """Cases and kinds of tokenizers, once each."""
    return list(dict.fromkeys("/".join(line.split(":")[0].split("/")[:2]) for line in lines))


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "srpo_verl")
    return git("rev-parse", "--short", "HEAD") + (" and uncommitted changes" if changed else "")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
