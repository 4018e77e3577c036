"""killed_evaluation.py FOLDER N: an evaluation that kills itself while it grades question N ("none": never)."""

import os
import signal
import sys
import time
from pathlib import Path

from tests.workflows.evaluate.test_pipeline import FakeEngine, questions, run


def main(folder: Path, fatal: str) -> None:
    def reward(data_source, solution_str, ground_truth, extra_info):
        number = extra_info["index"] - 100
        with open(folder / "graded.txt", "a") as file:
            file.write(f"Question-{number}\n")
        if str(number) == fatal:
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.0

    run(folder, questions(5), FakeEngine(), reward=reward)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
