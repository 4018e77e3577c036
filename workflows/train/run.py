"""A training run from its config to its summary."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from srpo_verl.config.planned_steps import planned_steps
from workflows.compose_config import compose_config
from workflows.run_display import display
from workflows.run_folder import SUMMARY
from workflows.run_reader import read_run
from workflows.run_summary import Summary, show, summarise
from workflows.train.checks import ChecksFailedError, check
from workflows.train.folder import TrainFiles, claim_run, newest_checkpoint
from workflows.verl_run import RunFailed, RunOutcome, hydra_value, run_environment, verl_command, watch

__all__ = ["ChecksFailedError", "RunFailed", "train"]


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
    command: Sequence[str] | None = None,
) -> Summary:
    """Checks the config, trains, and summarises the run over all its starts.

    Args:
        config_name: as for `python -m verl.trainer.main_ppo --config-name`.
        overrides: Hydra's.
        out: the run's folder, `trainer.default_local_dir`.
        resume, fresh: what to do with a run that is in `out`; see `folder.claim_run`.
        checks: whether `srpo doctor` and `srpo plan` look at the config first.
        timeout: seconds after which the run is ended.
        command: replaces the program that is run (tests).

    Raises:
        workflows.compose_config.ConfigError: the config cannot be composed.
        ChecksFailedError: a check failed; nothing was started.
        FileExistsError, FileNotFoundError, ValueError: what is in `out` does not fit `resume` and `fresh`.
        RunFailed: training failed; the message says why.
    """
    console = console or Console()
    folder = out.absolute()
    settings = {
        "trainer.default_local_dir": folder,
        "trainer.resume_mode": "auto" if resume else "disable",
        "hydra.run.dir": folder / "hydra",
    }
    # What a person types wins, hence last.
    config = compose_config(
        config_name, [*(f"{key}={hydra_value(value)}" for key, value in settings.items()), *overrides]
    )
    if checks:
        check(config, console)
    files = claim_run(out, resume=resume, fresh=fresh)
    console.print(f"run folder {files.folder}, log {files.log}", highlight=False, markup=False, soft_wrap=True)
    if resume:
        console.print(f"going on from {newest_checkpoint(folder) or 'the beginning: there is no checkpoint'}")
    try:
        with display(console, planned_steps(config)) as screen:
            outcome = watch(
                command or verl_command(config_name, settings, overrides),
                files=files,
                env=environment(files, cpu=config.trainer.device == "cpu", nodes=config.trainer.nnodes),
                observer=screen,
                timeout=timeout,
            )
    except RunFailed as error:
        raise RunFailed(f"{error}\n{_hint(files)}") from error
    summary = summarise(
        _over_all_starts(files, outcome), config_name=config_name, seed=int(config.data.get("seed") or 0)
    )
    show(summary, files, console)
    summary.save(folder / SUMMARY)
    return summary


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


def _over_all_starts(files: TrainFiles, outcome: RunOutcome) -> RunOutcome:
    try:
        records = read_run(files.folder).records or outcome.records
    except FileNotFoundError:
        records = outcome.records
    return RunOutcome(records, outcome.stage_seconds, outcome.total_seconds, outcome.peak_memory_bytes)


def _hint(files: TrainFiles) -> str:
    checkpoint = newest_checkpoint(files.folder)
    if checkpoint is None:
        return "There is no checkpoint yet. When the cause is gone, begin anew with the same command and --fresh"
    return f"{checkpoint} is there. When the cause is gone, go on with the same command and --resume"
