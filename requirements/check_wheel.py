"""check_wheel.py: what of an installed wheel works with typer and omegaconf alone; run by its interpreter.

The command line answers, and the files that are no Python are there. For what needs torch: tests/test_wheel.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

FILES = {
    "srpo_verl": ["py.typed", "config/srpo.yaml", "config/platform/cpu.yaml"],
    "workflows": ["report/page.css", "report/page.js", "report/page.html.j2", "export/card.md.j2", "inspect/page.js"],
}


def main() -> None:
    os.chdir(tempfile.mkdtemp())  # nothing of a checkout is found from here
    missing = [
        f"{package}/{name}" for package, names in FILES.items() for name in names if not _is_there(package, name)
    ]
    if missing:
        sys.exit(f"the wheel lacks {', '.join(missing)}")
    command = Path(sys.executable).with_name("srpo")
    said = subprocess.run([command, "--version"], check=True, capture_output=True, text=True).stdout
    if metadata.version("srpo-verl") not in said:
        sys.exit(f"srpo --version says {said!r}")
    help_text = subprocess.run([command, "--help"], check=True, capture_output=True, text=True).stdout
    print(f"{said.strip()}\n{len(help_text.splitlines())} lines of help, every file is there")


def _is_there(package: str, name: str) -> bool:
    """Nothing is imported: our packages import torch."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"{package} is not installed")
    return any(Path(place, name).is_file() for place in spec.submodule_search_locations)


if __name__ == "__main__":
    main()
