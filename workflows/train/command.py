"""`srpo train CONFIG`: the command line of :func:`workflows.train.run.train`."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    config_name: Annotated[str, typer.Argument(help="Which config, e.g. srpo, grpo, sdpo, srpo_tiny.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, metrics, config, log.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Hydra overrides, e.g. data.train_files=runs/data/biology/train.parquet"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew; what is in --out is moved beside it.")] = False,
    no_checks: Annotated[bool, typer.Option("--no-checks", help="Start without srpo doctor and srpo plan.")] = False,
    timeout: Annotated[float | None, typer.Option(min=1, help="Seconds after which the run is ended.")] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once it has begun; it goes on (srpo attach, stop, status).")
    ] = False,
) -> None:
    """Check a config, then train with it: `python -m verl.trainer.main_ppo`, watched to its end.

    What verl, Ray and vLLM say is in train.log. When it ends, for whatever reason, no process of it is left; it ends
    too when this command is killed, but for a run with --detach. SIGTERM and SIGUSR1: save, then end.
    Exit code 1 if the checks or the run failed, 2 if the config cannot be composed, 130 if it was stopped.
    """
    from workflows.train.detached import claimed, start_detached

    if detach:
        words = ["--out", str(out), *(["--resume"] if resume else []), *(["--fresh"] if fresh else [])]
        words += [*(["--no-checks"] if no_checks else []), *([] if timeout is None else ["--timeout", str(timeout)])]
        raise typer.Exit(start_detached([*words, "--", config_name, *(overrides or ())], out))
    # The imports below take most of it.
    doing = "getting ready" if no_checks else "checking the config and this machine"
    typer.echo(f"{doing}, usually under a minute; the run's log will be {out / 'train.log'}")
    from workflows.compose_config import ConfigError
    from workflows.train.run import FolderTakenError, RunFailed, RunStopped, train

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)  # a polite kill cleans up as Ctrl-C does
    errors = Console(stderr=True)
    try:
        train(
            config_name, overrides or (), out=out, resume=resume, fresh=fresh, checks=not no_checks,
            timeout=math.inf if timeout is None else timeout, claimed=claimed,
        )  # fmt: skip
    except RunStopped as error:
        errors.print(f"\n{error}", style="yellow", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
    except (RunFailed, FolderTakenError, ValueError, OSError) as error:
        errors.print(f"\n{error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from error
    except KeyboardInterrupt:
        errors.print(f"\nstopped; no process of the run is left. Go on with --resume (--out {out})", style="red")
        raise typer.Exit(130) from None
