"""`srpo stop RUN`: ends a run with a checkpoint, on this machine or another: the request goes through its folder."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from srpo_verl.base.lease import RUNS
from srpo_verl.base.lease_files import StopRequest, ask_to_stop
from workflows.live.run_state import NoRunError, RunState, live_run, run_state

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    run: Annotated[Path, typer.Argument(help="Folder of the run (--out of srpo train).")],
    within: Annotated[
        float | None, typer.Option(min=0, help="Seconds after which it ends without a checkpoint; else none.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return once it has ended, or at once.")] = True,
) -> None:
    """Ask a run to save a checkpoint at the end of its step and to end; wait until it has.

    Exit code 1 if nothing is going on there.
    """
    console, errors = Console(), Console(stderr=True)
    try:
        last = stop(run, within=within, wait=wait, tell=lambda text: console.print(text, markup=False, soft_wrap=True))
    except NoRunError as error:
        errors.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("\nthe run has been asked to stop, and will")
        return
    if wait:
        console.print(f"{last.folder}: {last.how}", markup=False, highlight=False, soft_wrap=True)


def stop(
    folder: Path,
    *,
    within: float | None = None,
    wait: bool = True,
    tell: Callable[[str], object] = lambda text: None,
    poll: float = 0.5,
) -> RunState:
    """Asks, and waits until the run does not live any more; returns how it is then.

    Raises:
        NoRunError: nothing is going on there, or nothing that can be asked.
        OSError: the folder cannot be written.
    """
    state, record = live_run(folder)
    if record.what not in RUNS:
        raise NoRunError(f"{state.folder}: {record.what} is no training; end it with kill {record.holder.pid}")
    ask_to_stop(state.place, record.token, StopRequest(f"srpo stop on {socket.gethostname()}", within))
    at = f"at step {state.beat.step}" if state.beat and state.beat.step is not None else "before its first step"
    doing = f", in {state.beat.doing}" if state.beat else ""
    tell(f"run {record.token} ({record.holder}), {at}{doing}, is asked to save and end after the step that it is in")
    while wait and state.lives and state.record is not None and state.record.token == record.token:
        time.sleep(poll)
        state = run_state(folder)
    return state
