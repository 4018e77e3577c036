"""The lease of a run's folder, from verl's main process to the trainer; and requests to end, which travel in it.

The main process takes the folder before it starts Ray, and the trainer, perhaps on another node, gets the token with
the config and takes it from there. Started without our main process, the trainer takes it itself.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig, open_dict

from srpo_verl.base.lease import TRAINING, Lease, LeaseTimes, take
from srpo_verl.base.lease_files import StopRequest
from srpo_verl.config import SRPOConfig


def take_run_folder(config: DictConfig, srpo: SRPOConfig, what: str = TRAINING) -> Lease:
    """The lease of `trainer.default_local_dir`. Raises FolderTakenError, or OSError if it cannot be written."""
    return take(
        Path(config.trainer.default_local_dir).absolute(),
        what=what,
        token=srpo.lease.run,
        times=LeaseTimes(interval=srpo.lease.interval, timeout=srpo.lease.timeout),
        tell=lambda sentence: print(f"srpo: warning: {sentence}", file=sys.stderr, flush=True),
    )


def forget_token(config: DictConfig) -> None:
    """Once it was used: it says nothing about the run, and no other start may have it."""
    with open_dict(config):
        config.srpo.lease.run = None
        config.actor_rollout_ref.srpo.lease.run = None  # its copy, once resolved


class StopRequests:
    """Looks for requests to end on a thread of its own, and ends the run where their time is up.

    Args:
        lease: in which they are.
        end: called when the time is up, or if nothing is being trained yet; does not return.
    """

    def __init__(self, lease: Lease, end: Callable[[str], object]):
        self._lease, self._end = lease, end
        self._closed = threading.Event()
        self._deadline: float | None = None
        self.asked: StopRequest | None = None
        self.training = False

    def listen(self, every: float = 1.0) -> None:
        threading.Thread(target=self._listen, args=(every,), name="srpo requests", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _listen(self, every: float) -> None:
        while not self._closed.wait(every):
            if (sentence := self.look()) is not None:
                self._end(sentence)
                return

    def look(self) -> str | None:
        """Why the run has to end at once, None if it can go on to the end of its step."""
        if self.asked is None:
            self.asked = self._lease.stop_request()
            if self.asked is None:
                return None
            within = self.asked.within
            self._deadline = None if within is None else time.monotonic() + within
            limit = "" if within is None else f", if that comes within {within:g} s"
            print(
                f"srpo: {self.asked.why}: the run ends with a checkpoint at the end of its step{limit}",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        if not self.training:
            return f"{self.asked.why}, before anything was trained"
        if self._deadline is not None and time.monotonic() > self._deadline:
            return f"{self.asked.why}, and the step did not end within {self.asked.within:g} s"
        return None
