#!/usr/bin/env python
"""Stands in for the Python of a site: `stand_in.py -m verl.trainer.main_ppo --config-name=X key=value ...`.

Does to the run folder what verl does, in milliseconds: a start with config and metrics, a record per step, a checkpoint
every two steps, declared whole before its step is logged; resumes from it. Each step that is trained is also appended
to `$STAND_IN_STEPS`, with no buffer, so that a test sees what was done how often. What goes wrong is in
`stand_in.fault`. After step `stand_in.hold` it waits until there is a file `go_on` in its folder, for tests that do
something in the middle of a run.
"""

import json
import os
import sys
import time
from pathlib import Path

from srpo_verl.training.durable.checkpoint_store import begin, finish, newest, step_folder
from srpo_verl.training.durable.metrics_lines import settle

SAVE_FREQ = 2
TRAINED = {"timing_s/step": 100.0, "srpo/routed_share": 0.4}


def main() -> None:
    if "workflows.reproduce.wait_for_gpus" in sys.argv:
        return
    if "ray.scripts.scripts" in sys.argv:
        print("stand-in: ray started", flush=True)
        time.sleep(600)
    values = {}
    for argument in sys.argv[1:]:
        key, equals, value = argument.lstrip("+").partition("=")
        if equals:
            values[key] = value
    folder = Path(values["trainer.default_local_dir"])
    steps = int(values.get("trainer.total_training_steps", 10_000))
    seconds = float(values.get("stand_in.seconds", 0.01))
    fault, hold = values.get("stand_in.fault", ""), int(values.get("stand_in.hold", -1))
    checkpoint = newest(folder)
    done = checkpoint.step if checkpoint else 0
    settle(folder, done if checkpoint else None, TRAINED)
    start = folder / "srpo_run" / f"{time.time_ns():020d}"
    start.mkdir(parents=True)
    (start / "config.yaml").write_text(json.dumps({"trainer": {"experiment_name": folder.name}}))
    print(f"stand-in: on from step {done}", flush=True)
    with (start / "metrics.jsonl").open("w") as metrics:

        def log(step: int, data: dict) -> None:
            metrics.write(json.dumps({"step": step, "data": data}) + "\n")
            metrics.flush()

        if values.get("trainer.val_before_train") != "False":
            log(done, {"val-core/x/acc/mean@16": 0.4})
        for step in range(done + 1, steps + 1):
            time.sleep(seconds)
            while step == hold + 1 and not (folder / "go_on").exists():
                time.sleep(0.02)
            if fault == "raises" and step == 2 and not (folder / "mended").exists():
                raise RuntimeError("CUDA out of memory")
            with open(os.environ["STAND_IN_STEPS"], "ab", buffering=0) as file:
                file.write(f"{folder.name} {step}\n".encode())
            if step % SAVE_FREQ == 0 or step == steps:
                begin(step_folder(folder, step), step)
                finish(step_folder(folder, step), step=step, run="stand-in")
            if fault == "dies_before_logging" and step == steps:
                os._exit(9)
            accuracy = 0.1 if fault == "collapses" and step > 2 else 0.5
            log(step, {**TRAINED, "val-core/x/acc/mean@16": accuracy})
            if fault == "ends_early" and step == 2:
                return


if __name__ == "__main__":
    main()
