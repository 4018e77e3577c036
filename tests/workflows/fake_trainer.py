"""Stands in for `python -m verl.trainer.main_ppo`: writes a log and metrics as verl does, then ends as it is told to.

fake_trainer.py ENDING STEPS [-]   ENDING: well, raises, worker_raises, refused, hangs, killed, leaves_children,
raises_in_step_1; with a third argument it does not validate first
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

STRAY = [sys.executable, "-c", "import time; time.sleep(600)"]


def log_metrics(file, step: int, **extra: float) -> None:
    data = {"timing_s/step": 0.1 * step, "srpo/accuracy": 0.1 * step, "srpo/routed_share": 0.5 - 0.1 * step, **extra}
    file.write(json.dumps({"step": step, "data": data}) + "\n")
    file.flush()


def main(ending: str, steps: int, validates: bool = True) -> None:
    print("ray init kwargs: {'num_cpus': 16}", flush=True)
    if ending == "refused":
        sys.stderr.write("srpo: warning: a detail\nsrpo: srpo.threshold=2.0: set it within [0, 1]\n")
        raise SystemExit(2)
    print("2026-01-01 00:00:00,000\tINFO worker.py:1 -- Started a local Ray instance.", flush=True)
    print(f"\x1b[36m(TaskRunnerV1 pid=7)\x1b[0m  'val_before_train': {validates},", flush=True)
    if ending == "leaves_children":
        # As Ray's daemons do: another session, reparented when we end.
        child = subprocess.Popen(STRAY, start_new_session=True)
        Path(os.environ["STRAY_PID"]).write_text(str(child.pid))
    print(
        f"\x1b[36m(TaskRunnerV1 pid=7)\x1b[0m Creating file logger at {os.environ['VERL_FILE_LOGGER_PATH']}", flush=True
    )
    with open(os.environ["VERL_FILE_LOGGER_PATH"], "w") as file:
        start = {"step": 0, "data": {"val-core/tiny/acc/mean@4": 0.25, "val-core/tiny/acc/best@4/mean": 0.9}}
        if validates:
            file.write(json.dumps(start) + "\n")
            file.flush()
        print(
            "\x1b[36m(TaskRunnerV1 pid=7)\x1b[0m Training Progress:   0%|          | 0/3 [00:00<?, ?it/s]", flush=True
        )
        if ending == "raises_in_step_1":
            raise KeyError("reward_model")
        for step in range(1, steps + 1):
            log_metrics(file, step, **({"val-core/tiny/acc/mean@4": 0.75} if step == steps else {}))
    if ending in ("well", "hangs", "leaves_children"):
        print("waiting for a socket", flush=True)
        time.sleep(600 if ending == "hangs" else 0.5)
    elif ending == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif ending == "raises":
        raise KeyError("reward_model")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), validates=len(sys.argv) == 3)
