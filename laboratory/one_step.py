"""The numbers and pictures of docs/tutorials/read-one-step.md.

python -m laboratory.one_step --out docs/tutorials/images
"""

from __future__ import annotations

import argparse
from pathlib import Path

from laboratory.one_group import one_step
from laboratory.one_step_figures import draw
from laboratory.one_step_text import told


def main() -> None:
    """Print the numbers and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    folder = parser.parse_args().out
    step = one_step()
    print(told(step), end="")
    folder.mkdir(parents=True, exist_ok=True)
    draw(step, folder)


if __name__ == "__main__":
    main()
