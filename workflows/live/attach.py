"""`srpo attach RUN`: the live line of a run that another program started, on this machine or another."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from srpo_verl.base.lease import TRAINING
from workflows.live.run_state import NoRunError, RunState, live_run, run_state

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(run: Annotated[Path, typer.Argument(help="Folder of the run (--out of srpo train).")]) -> None:
    """Show a run that is going on, until it ends. Ctrl-C ends the showing, not the run.

    Exit code 1 if nothing is going on there, or if the run did not end well.
    """
    console, errors = Console(), Console(stderr=True)
    try:
        last = attach(run, console)
    except NoRunError as error:
        errors.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print(f"\nthe run goes on (srpo stop {run} ends it)", markup=False, highlight=False)
        return
    console.print(f"{last.folder}: {last.how}", markup=False, highlight=False, soft_wrap=True)
    if last.how != "ended":
        raise typer.Exit(1)


def attach(folder: Path, console: Console, *, poll: float = 0.5) -> RunState:
    """Shows the run until it does not live any more; returns how it is then. Raises NoRunError."""
    from workflows.run_display import display
    from workflows.train.folder import STARTS, TrainFiles
    from workflows.verl_run import Follower, RunFiles

    state, record = live_run(folder)
    earlier: frozenset[str] = frozenset()
    if state.place == state.folder:
        starts = sorted(start.name for start in (state.folder / STARTS).glob("*"))
        # The trainer makes its own once it has the folder. (Its name is of the trainer's clock and time zone.)
        earlier = frozenset(starts[:-1] if record.what == TRAINING else starts)
        files: RunFiles = TrainFiles(state.folder, earlier=earlier)
    else:
        files = RunFiles(state.folder)
    console.print(
        f"{state.folder}: run {record.token}, {record.holder}; log {files.log}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    with display(console, None, max(0.0, time.time() - record.since)) as screen:
        follower = Follower(files, screen)
        while True:
            state = run_state(folder)
            screen.total_steps = screen.total_steps or _planned(state.place, earlier)
            follower.look()
            if not state.lives or state.record is None or state.record.token != record.token:
                return state
            time.sleep(poll)


def _planned(place: Path, earlier: frozenset[str]) -> int | None:
    """Steps that the run will have, if it has said so by now: its trainer does, a while after it has the folder."""
    from srpo_verl.config.planned_steps import planned_steps

    configs = sorted(path for path in place.glob("srpo_run/*/config.yaml") if path.parent.name not in earlier)
    config = OmegaConf.load(configs[-1]) if configs else None
    return planned_steps(config) if isinstance(config, DictConfig) else None
