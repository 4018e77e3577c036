"""Build the tiny laboratory: a model that half knows a small arithmetic task, and the task's data.

    python examples/tiny/build.py --out runs/tiny --seed 0

Less than a minute on one CPU core. Run again, it finds the finished folder and returns at once.
"""

import argparse
import time
from pathlib import Path

from workflows.tiny_lab.build import Settings, build


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/tiny"), help="folder to build (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of faults, data and weights (default: 0)")
    parser.add_argument("--train", type=int, default=1024, help="training questions (default: %(default)s)")
    parser.add_argument("--test", type=int, default=128, help="held-out questions (default: %(default)s)")
    args = parser.parse_args()

    start = time.monotonic()
    if build(args.out, Settings(seed=args.seed, n_train=args.train, n_test=args.test)):
        print(f"{args.out}: built in {time.monotonic() - start:.0f} s")
    else:
        print(f"{args.out}: already built with these settings, nothing to do")


if __name__ == "__main__":
    main()
