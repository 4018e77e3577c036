"""fake_run.py RUN ENDING STEPS NAME: the fake trainer, with metrics where a real start puts them, and a checkpoint."""

import os
import sys
from pathlib import Path

from srpo_verl.training.durable import checkpoint_store
from tests.workflows import fake_trainer


def main(folder: Path, ending: str, steps: int, name: str) -> None:
    assert "VERL_FILE_LOGGER_PATH" not in os.environ
    start = folder / "srpo_run" / name
    start.mkdir(parents=True)
    (start / "config.yaml").write_text("data: {seed: 1}\n")
    checkpoint_store.begin(folder / f"global_step_{steps}", steps)
    checkpoint_store.finish(folder / f"global_step_{steps}", step=steps, run="run")
    os.environ["VERL_FILE_LOGGER_PATH"] = str(start / "metrics.jsonl")
    fake_trainer.main(ending, steps)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])
