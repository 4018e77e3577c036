"""The watchdog on verl's trainer: its stages, its workers, the prompts it waits for, and how it ends a run."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import transfer_queue as tq

from srpo_verl.base.lease import FolderTakenError, LeaseLostError
from srpo_verl.training.durable.checkpoint_store import CheckpointError, newest
from srpo_verl.training.durable.guards import TrainingStoppedError
from srpo_verl.training.rollout_keys import RolloutKey
from srpo_verl.training.watch.heartbeats import DEATHS, Heartbeats, describe, remote_cause
from srpo_verl.training.watch.rollout_failures import waiting_failures
from srpo_verl.training.watch.watchdog import Watchdog
from srpo_verl.verl_names.driver import actors_of, check_watched, engines_of

# Methods of verl's trainer: (name of the stage, as in timing_s/..., key of its limit).
STAGES = {
    "_setup": ("startup", "startup"),
    "on_init_end": ("update_weights", "update_weights"),
    "_validate": ("testing", "testing"),
    "_reissue_inflight_prompts": ("gen", "gen"),
    "on_step_begin": ("switch", "update_weights"),
    "prepare_step": ("gen", "gen"),
    "on_sample_end": ("sleep", "update_weights"),
    "_balance_batch": ("balance and route", "compute"),
    "_compute_old_log_prob": ("old_log_prob", "compute"),
    "_compute_ref_log_prob": ("ref", "compute"),
    "_compute_values": ("values", "compute"),
    "_compute_advantage": ("adv", "compute"),
    "_update_critic": ("update_critic", "compute"),
    "_update_actor": ("update_actor", "compute"),
    "_save_checkpoint": ("save_checkpoint", "save_checkpoint"),
    "on_step_end": ("update_weights", "update_weights"),
    "on_validate_begin": ("switch", "update_weights"),
}
# Seconds that Ray's log forwarding gets to carry the report to the terminal, before the process ends.
FORWARDING = 2.0

Trainer = TypeVar("Trainer", bound=type)


def watched(trainer: Trainer) -> Trainer:
    """Class decorator: every stage of a step runs under `self.watchdog`; training begins once all actors are found."""
    for method, (stage, key) in STAGES.items():
        setattr(trainer, method, _in_stage(stage, key, getattr(trainer, method)))
    trainer.on_train_begin = _once_all_are_found(trainer.on_train_begin)  # type: ignore[attr-defined]
    return trainer


def _once_all_are_found(begin: Callable[[Any], None]) -> Callable[[Any], None]:
    @functools.wraps(begin)
    def on_train_begin(self) -> None:
        check_watched(self)
        begin(self)

    return on_train_begin


def _in_stage(stage: str, key: str, method: Callable) -> Callable:
    @functools.wraps(method)
    def staged(self, *args: Any, **kwargs: Any) -> Any:
        self.lease.check()
        self.lease.note(doing=stage)
        with self.watchdog.stage(stage, key):
            return method(self, *args, **kwargs)

    return staged


def build_watchdog(trainer: Any) -> Watchdog:
    """The watchdog of a trainer that has its config, not its workers yet."""
    heartbeats = Heartbeats()
    config = trainer.srpo.watchdog

    def details() -> list[str]:
        return [*heartbeats.silent(longer_than=2 * config.interval), *unfinished_prompts(tq.kv_list() or {})]

    return Watchdog(
        config,
        dead=lambda: heartbeats.look(actors_of(trainer), engines=engines_of(trainer)),
        details=details,
        end=lambda report: end_process([*report, newest_checkpoint(trainer)]),
        where=lambda: f"step {getattr(trainer, 'global_steps', 0)}",
    )


def unfinished_prompts(listing: dict[str, dict[str, dict[str, Any]]], *, at_most: int = 8) -> list[str]:
    """A sentence about prompts whose rollouts are still being waited for, from TransferQueue's listing."""
    lines = []
    for items in listing.values():
        prompts = {key: tag for key, tag in items.items() if tag.get("is_prompt")}
        waiting = {key: tag for key, tag in prompts.items() if tag.get("status") in ("pending", "running")}
        if not waiting:
            continue
        there = [RolloutKey.parse(key).uid for key in items if key not in prompts]
        named = [f"uid {uid} ({tag['status']}, {there.count(uid)} rollouts there)" for uid, tag in waiting.items()]
        more = f" and {len(named) - at_most} more" if len(named) > at_most else ""
        lines.append(f"{len(waiting)} of {len(prompts)} prompts are unfinished: {', '.join(named[:at_most])}{more}")
    return lines


@contextmanager
def named_failure(trainer: Any) -> Iterator[None]:
    """Says in which stage of which step an exception ended the run, and why; then verl's own clean-up has its time."""
    try:
        yield
    except BaseException as error:
        trainer.watchdog.closing()
        stage = trainer.watchdog.failed_in or "the training loop"
        where = f"{stage} (step {getattr(trainer, 'global_steps', 0)}) failed"
        if isinstance(error, FolderTakenError | LeaseLostError):
            _say([str(error)])
            raise
        if isinstance(error, TrainingStoppedError):
            _say([str(error), newest_checkpoint(trainer)])
            raise
        # A rank that dies makes the others fail too, and theirs may be the failure that came first.
        lost = trainer.watchdog.deaths()
        if isinstance(error, CheckpointError):
            _say([str(error), *lost, newest_checkpoint(trainer)])
            raise
        if not lost and isinstance(remote_cause(error), DEATHS):
            lost = [describe(error)]
        if causes := [*lost, *waiting_failures()]:
            _say([f"{where}: {cause}" for cause in causes] + [newest_checkpoint(trainer)])
        else:
            print(f"srpo: warning: {where}, see the traceback", file=sys.stderr, flush=True)
        raise


def newest_checkpoint(trainer: Any) -> str:
    """What a resumed run will go on from."""
    found = newest(Path(trainer.config.trainer.default_local_dir))
    if found is None:
        return "there is no checkpoint yet, so the steps of this start are lost"
    return f"the newest checkpoint is of step {found.step}; the steps after it are lost"


def end_process(report: list[str], by: str = "the run was ended by its watchdog:") -> None:
    """Ends the trainer's process at once: the thread that waits cannot be woken. Ray takes its workers down."""
    _say([by, *report])
    time.sleep(FORWARDING)
    os._exit(1)


def _say(sentences: list[str]) -> None:
    for sentence in sentences:
        print(f"srpo: {sentence}", file=sys.stderr, flush=True)
