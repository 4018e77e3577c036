"""verl's main process has the run's folder until the trainer does, and passes on to it that the run is to end.

SIGTERM (Kubernetes, systemd) and SIGUSR1 (Slurm's --signal) mean: save and end. They reach this process, the trainer
may be on another node; so the request goes through the folder. A second SIGTERM ends the run at once.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
import uuid
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import DictConfig, open_dict

from srpo_verl.base.lease import STARTING, TOKEN, Lease
from srpo_verl.base.lease_files import StopRequest, ask_to_stop, newest_record
from srpo_verl.config import SRPOConfig
from srpo_verl.training.durable.run_lease import take_run_folder
from srpo_verl.verl_names.leftovers import remove_leftovers

# Of this process to itself: Ray is there, and has put its own handlers in place.
_RAY_IS_THERE = signal.SIGURG


def draw_token(config: DictConfig) -> None:
    """The token of this start, or of the command that started this process and has the folder; into the config."""
    given = os.environ.get(TOKEN)
    newest = newest_record(Path(config.trainer.default_local_dir).absolute()) if given else None
    inherited = newest is not None and newest.token == given and newest.holder.pid == os.getppid()
    with open_dict(config):
        config.srpo.lease.run = given if inherited else uuid.uuid4().hex[:16]


def take_folder(config: DictConfig, srpo: SRPOConfig) -> Lease:
    """For the trainer, which takes it from here. Raises FolderTakenError, OSError."""
    remove_leftovers()
    lease = take_run_folder(config, srpo, what=STARTING)
    os.environ[TOKEN] = lease.token  # of every process of a Ray that this one starts
    atexit.register(lease.release, "ended before it trained")
    return lease.keep(_lost)


def heed_signals(lease: Lease, grace: float) -> None:
    """Once Ray is there: before, a signal ends this process, and nothing is lost."""
    asked = False

    def end(number: int, frame: FrameType | None) -> Any:
        nonlocal asked
        if asked and number == signal.SIGTERM:
            raise SystemExit(128 + number)
        asked = _passed_on(lease, signal.Signals(number).name, grace)

    def arm(number: int, frame: FrameType | None) -> None:
        for known in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(known, end)

    signal.signal(_RAY_IS_THERE, arm)
    threading.Thread(target=_tell_when_ray_is_there, name="srpo signals", daemon=True).start()


def _passed_on(lease: Lease, name: str, grace: float) -> bool:
    """Whether the trainer will find the request; what a handler raises would end the run in the middle of its step."""
    try:
        ask_to_stop(lease.folder, lease.token, StopRequest(name, grace))
    except OSError as error:
        print(f"srpo: warning: {name} could not be passed on: {error}", file=sys.stderr, flush=True)
        return False
    print(f"srpo: {name}: the run is asked to save and end within {grace:g} s", file=sys.stderr, flush=True)
    return True


def _tell_when_ray_is_there() -> None:
    import ray

    while not ray.is_initialized():
        time.sleep(0.2)
    os.kill(os.getpid(), _RAY_IS_THERE)  # Python runs handlers, and sets them, in the main thread only


def _lost(why: str) -> None:
    print(f"srpo: the run was ended: {why}", file=sys.stderr, flush=True)
    os._exit(1)
