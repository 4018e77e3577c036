"""A training run from its config to its summary."""

from __future__ import annotations

import functools
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from srpo_verl.base.lease import TOKEN, TRAINING, FolderTakenError, Lease
from srpo_verl.base.lease_files import StopRequest, ask_to_stop, newest_record, read_end
from srpo_verl.config.planned_steps import planned_steps
from workflows.compose_config import compose_config
from workflows.metrics_log import Record
from workflows.run_display import display
from workflows.run_folder import SUMMARY
from workflows.run_reader import read_run
from workflows.run_summary import Summary, show, summarise
from workflows.train.checks import ChecksFailedError, check
from workflows.train.folder import TrainFiles, claim_run, dump_settings, newest_checkpoint
from workflows.verl_run import RunFailed, hydra_value, run_environment, verl_command, watch

__all__ = ["ChecksFailedError", "FolderTakenError", "RunFailed", "RunStopped", "train"]

STOPPED = "stopped: "  # how a lease ends whose run was asked to end


class RunStopped(RuntimeError):
    """A run that was asked to end, and did; the message says where."""


def train(
    config_name: str,
    overrides: Sequence[str] = (),
    *,
    out: Path,
    resume: bool = False,
    fresh: bool = False,
    checks: bool = True,
    timeout: float = math.inf,
    console: Console | None = None,
    claimed: Callable[[Path], object] = lambda folder: None,
    command: Sequence[str] | None = None,
) -> Summary:
    """Checks the config, trains, and summarises the run over all its starts.

    Args:
        config_name: as for `python -m verl.trainer.main_ppo --config-name`.
        overrides: Hydra's.
        out: the run's folder, `trainer.default_local_dir`.
        resume: go on with the run that is in `out`; see `folder.claim_run`.
        fresh: move that run beside `out` and begin anew.
        checks: whether `srpo doctor` and `srpo plan` look at the config first.
        timeout: seconds after which the run is ended.
        claimed: called with the run's folder once this process has it.
        command: replaces the program that is run (tests).

    In the main thread SIGTERM and SIGUSR1 ask a run that trains to save and end, meanwhile; the second ends it.

    Raises:
        workflows.compose_config.ConfigError: the config cannot be composed.
        ChecksFailedError: a check failed; nothing was started.
        FileExistsError, FileNotFoundError, ValueError: what is in `out` does not fit `resume` and `fresh`.
        srpo_verl.base.lease.FolderTakenError: another run has the folder.
        RunFailed: training failed; the message says why.
        RunStopped: it was asked to end.
    """
    console = console or Console()
    folder = out.absolute()
    settings: dict[str, object] = {
        "trainer.default_local_dir": folder,
        "trainer.resume_mode": "auto" if resume else "disable",
        "hydra.run.dir": folder / "hydra",
    }

    def composed() -> DictConfig:
        # What a person types wins, hence last.
        return compose_config(
            config_name, [*(f"{key}={hydra_value(value)}" for key, value in settings.items()), *overrides]
        )

    config = composed()
    if dumps := dump_settings(config, overrides, folder):
        settings |= dumps
        config = composed()
    if checks:
        check(config, console)
    tell = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    files, lease = claim_run(out, resume=resume, fresh=fresh, tell=tell)
    claimed(files.folder)
    console.print(f"run folder {files.folder}, log {files.log}", highlight=False, markup=False, soft_wrap=True)
    if resume:
        console.print(f"going on from {newest_checkpoint(folder) or 'the beginning: there is no checkpoint'}")
    env = environment(files, cpu=config.trainer.device == "cpu", nodes=config.trainer.nnodes)
    how = "failed"
    try:
        with heeding(lease, config.srpo.checkpoint.grace, tell), display(console, planned_steps(config)) as screen:
            outcome = watch(
                command or verl_command(config_name, settings, overrides),
                files=files,
                env={**env, TOKEN: lease.token},
                observer=screen,
                timeout=timeout,
            )
        how = "ended"
    except RunFailed as error:
        if said := _stopped(lease):
            raise RunStopped(f"{said}\n{_hint(files)}") from error
        raise RunFailed(f"{error}\n{_hint(files)}") from error
    except KeyboardInterrupt:
        how = "interrupted"
        raise
    finally:
        # With a Ray of its own, no process of the run is left.
        lease.release(how, heirs=env.get("RAY_ADDRESS") == "local")
    summary = summarise(
        outcome,
        config_name=config_name,
        seed=int(config.data.get("seed") or 0),
        records=_of_all_starts(files) or outcome.records,
    )
    show(summary, files, console)
    summary.save(folder / SUMMARY)
    return summary


@contextmanager
def heeding(lease: Lease, grace: float, tell: Callable[[str], object]) -> Iterator[None]:
    """SIGTERM and SIGUSR1 ask the run to save and end. The second one ends it, as does one before it trains."""
    asked = False

    def heed(number: int, frame: object) -> None:
        nonlocal asked
        newest = newest_record(lease.folder)
        if asked or newest is None or newest.what != TRAINING:
            raise KeyboardInterrupt
        asked = True
        name = signal.Signals(number).name
        tell(f"{name}: the run is asked to save and end within {grace:g} s")
        ask_to_stop(lease.folder, lease.token, StopRequest(name, grace))

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, heed) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stopped(lease: Lease) -> str | None:
    """How a run ended that was asked to."""
    newest = newest_record(lease.folder)
    end = read_end(lease.folder, newest.generation) if newest and newest.token == lease.token else None
    return end["how"] if end and end["how"].startswith(STOPPED) else None


def environment(
    files: TrainFiles, *, cpu: bool, nodes: int = 1, base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of the child: as for the demo, but metrics where the trainer puts them (in a folder of each
    start's own), and the user's Ray cluster; without one, a run on one node starts its own."""
    given = dict(os.environ if base is None else base)
    made = run_environment(files, cpu=cpu, base=given)
    dropped = ["VERL_FILE_LOGGER_PATH", "TENSORBOARD_DIR"] + ["RAY_ADDRESS"] * (nodes > 1)
    for name in dropped:
        made.pop(name, None)
    return {**made, "RAY_ADDRESS": given["RAY_ADDRESS"]} if "RAY_ADDRESS" in given else made


def _of_all_starts(files: TrainFiles) -> list[Record]:
    try:
        return read_run(files.folder).records
    except FileNotFoundError:
        return []


def _hint(files: TrainFiles) -> str:
    checkpoint = newest_checkpoint(files.folder)
    if checkpoint is None:
        return "There is no checkpoint yet. When the cause is gone, begin anew with the same command and --fresh"
    return f"{checkpoint} is there. When the cause is gone, go on with the same command and --resume"
