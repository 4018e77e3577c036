"""`srpo demo`: a language model gets better with SRPO on this machine, through the real verl, Ray and vLLM.

    srpo demo --seed 0 --steps 30 [trainer.test_freq=5 ...]
    srpo demo --platform gpu

Builds a tiny model, its tokenizer and arithmetic questions, trains with `--config-name srpo_tiny`, and prints held-out
accuracy before and after. All that a run leaves is in its folder; what verl, Ray and vLLM say is in its `train.log`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from srpo_verl.config.planned_steps import planned_steps
from workflows.compose_config import compose_config
from workflows.process_tree import ProcessTree
from workflows.run_display import PlainDisplay, TerminalDisplay, display
from workflows.run_errors import explain
from workflows.run_folder import SUMMARY, claim_folder, mark
from workflows.run_plot import plot_run
from workflows.run_summary import Summary, show, summarise
from workflows.verl_run import RunFailed, RunFiles, hydra_value, run_environment, verl_command, watch

BUILDING = "building model and data"
# A tiny model leaves most of a card to others; logical CPUs are counted, not used.
ON_A_GPU = (
    "platform=gpu",
    "trainer.n_gpus_per_node=1",
    "actor_rollout_ref.rollout.gpu_memory_utilization=0.3",
    "ray_kwargs.ray_init.num_cpus=32",
)


class Platform(StrEnum):
    """Where the demo trains."""

    CPU = "cpu"
    GPU = "gpu"


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    overrides: Annotated[list[str] | None, typer.Argument(help="Hydra overrides, e.g. trainer.test_freq=5")] = None,
    seed: Annotated[int, typer.Option(help="Of the model, the data, their order and the sampling.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps; the config's own number by default.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run; a number is added if it is taken.")] = Path("runs/demo"),
    config_name: Annotated[str, typer.Option(help="Which of srpo_verl's configs.")] = "srpo_tiny",
    force: Annotated[bool, typer.Option("--force", help="Replace a finished run in --out.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep an unfinished run in --out too.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds after which the run is ended.")] = 1800,
    platform: Annotated[Platform, typer.Option(help="gpu trains on one GPU, in the GPU set.")] = Platform.CPU,
) -> None:
    """Build a tiny model, train it with SRPO on this machine's CPU (or one GPU), and say how much better it got."""
    _stop_like_ctrl_c(signal.SIGTERM, signal.SIGHUP)
    console = Console()
    try:
        run_demo(
            out=out,
            seed=seed,
            steps=steps,
            config_name=config_name,
            overrides=overrides or (),
            force=force,
            keep=keep,
            timeout=timeout,
            platform=platform,
            console=console,
        )
    except (RunFailed, FileExistsError, FileNotFoundError, ValueError) as error:
        console.print(f"\n{error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        console.print("\nstopped; no process of the run is left", style="red")
        raise typer.Exit(130) from None


def run_demo(
    *,
    out: Path,
    seed: int = 0,
    steps: int | None = None,
    config_name: str = "srpo_tiny",
    overrides: Sequence[str] = (),
    force: bool = False,
    keep: bool = False,
    timeout: float = 1800,
    platform: str = "cpu",
    console: Console | None = None,
    command: Sequence[str] | None = None,
    builder: Sequence[str] | None = None,
) -> Summary:
    """Build, train, summarise. `command` and `builder` replace the programs that are run (tests)."""
    if platform == "gpu":
        overrides = [*ON_A_GPU, *overrides]
    console = console or Console()
    files = RunFiles(claim_folder(out, force=force, keep=keep))
    tiny = files.folder / "tiny"
    settings = _settings(files, tiny, seed=seed, steps=steps)
    words = [f"{key}={hydra_value(value)}" for key, value in settings.items()]
    config = compose_config(config_name, [*words, *overrides], resolve=False)
    command = command or verl_command(config_name, settings, overrides)
    builder = builder or builder_command(tiny, seed, module=config.tiny.get("builder", "workflows.tiny.start"))
    env = {"HF_HUB_OFFLINE": "1", **run_environment(files, cpu=config.trainer.device == "cpu")}
    mark(files.folder, command=command, seed=seed)
    console.print(f"run folder {files.folder}", highlight=False, markup=False, soft_wrap=True)

    with display(console, planned_steps(config)) as screen:
        started = time.monotonic()
        _build(builder, screen, log=files.folder / "build.log", env=env, timeout=timeout)
        build_seconds = time.monotonic() - started
        outcome = watch(command, files=files, env=env, observer=screen, timeout=timeout - build_seconds)

    summary = summarise(outcome, config_name=config_name, seed=seed, build_seconds=build_seconds)
    plot = files.folder / "plot.png"
    plot_run(outcome.records, plot, title=f"SRPO, {config_name}, seed {seed}")
    show(summary, files, console, plot=plot)
    summary.save(files.folder / SUMMARY)
    return summary


def builder_command(tiny: Path, seed: int, *, module: str = "workflows.tiny.start") -> list[str]:
    """The program that makes the tiny model and its data in `tiny`."""
    return [sys.executable, "-m", module, "--out", str(tiny), "--seed", str(seed)]


def _settings(files: RunFiles, tiny: Path, *, seed: int, steps: int | None) -> Mapping[str, object]:
    """The Hydra overrides of the demo: where things are, the seed, the length."""
    settings: dict[str, object] = {
        "tiny.folder": tiny,
        "tiny.run": files.folder,
        "hydra.run.dir": files.folder / "hydra",
        "data.seed": seed,
        "actor_rollout_ref.rollout.seed": seed,
        "actor_rollout_ref.actor.data_loader_seed": seed,
    }
    if steps is not None:
        settings["trainer.total_training_steps"] = steps
    return settings


def _build(
    command: Sequence[str],
    screen: TerminalDisplay | PlainDisplay,
    *,
    log: Path,
    env: Mapping[str, str],
    timeout: float,
) -> None:
    screen.stage(BUILDING)
    started = time.monotonic()
    with ProcessTree(command, log=log, env=env) as tree:
        while (code := tree.poll()) is None:
            if time.monotonic() - started > timeout:
                raise RunFailed(f"{BUILDING} was not done after {timeout:.0f} s (--timeout). The log: {log}")
            time.sleep(0.2)
    if code != 0:
        raise RunFailed(f"{BUILDING} failed, exit code {code}.\n{explain(log.read_text())}\nThe whole log: {log}")


def _stop_like_ctrl_c(*signals: signal.Signals) -> None:
    """A polite kill cleans up as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in signals:
        signal.signal(number, interrupt)


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")
    app()
