"""`python -m workflows.gpu_check`, `make gpu-check ARGS="..."`; with its defaults `srpo doctor --gpu`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from workflows.gpu_check.settings import METHODS, Settings

FOLDER = Path("runs/gpu_check")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class Platform(StrEnum):
    """What the stages run on."""

    GPU = "gpu"
    CPU = "cpu"


@app.command()
def main(
    stages: Annotated[str, typer.Option(help="Which, with commas: core, worker, stack, demo. All by default.")] = "",
    platform: Annotated[Platform, typer.Option(help="cpu is a rehearsal, and is marked as one.")] = Platform.GPU,
    out: Annotated[Path, typer.Option(help="Folder of the results, logs and runs.")] = FOLDER,
    limits: Annotated[str, typer.Option(help="Seconds of a stage, e.g. core=120,stack=900.")] = "",
    select: Annotated[str | None, typer.Option(help="Tests of core and worker, as pytest's -k.")] = None,
    full: Annotated[bool, typer.Option("--full", help="The stage worker runs all tests of the worker.")] = False,
    model: Annotated[
        str | None, typer.Option(help="Folder of the stack's model, or `tiny`; by default SmolLM2-135M.")
    ] = None,
    methods: Annotated[str, typer.Option(help="Of the stack, the last is killed and resumed.")] = ",".join(METHODS),
    steps: Annotated[int, typer.Option(min=1, help="Of each run of the stack.")] = 20,
    demo_steps: Annotated[int | None, typer.Option(min=1, help="Of the demo; its own number by default.")] = None,
) -> None:
    """What works on this machine's GPU, stage by stage, with times and peaks of memory.

    Exit code 0 if every stage passed, 1 if one failed, 2 if there is no GPU or an option is wrong, 3 if a stage
    could not run and none failed.
    """
    from workflows.gpu_check.run import STAGES

    settings = Settings(
        platform=platform.value,
        folder=out.absolute(),
        limits=_limits(limits),
        select=select,
        full=full,
        model=model,
        methods=tuple(filter(None, methods.split(","))),
        steps=steps,
        demo_steps=demo_steps,
    )
    check_gpu(settings, tuple(filter(None, stages.split(","))) or tuple(STAGES))


def check_gpu(settings: Settings, stages: tuple[str, ...] | None = None) -> None:
    """Run, say where the results are, and exit with the status of the results."""
    from workflows.gpu_check.run import PAGE, RESULTS, STAGES, NoGPUError, run_checks

    if unknown := set(settings.methods) - set(METHODS):
        raise typer.BadParameter(f"--methods {', '.join(sorted(unknown))}: the methods are {', '.join(METHODS)}")
    try:
        report = run_checks(settings, stages or tuple(STAGES))
    except (NoGPUError, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    print(f"results: {settings.folder / RESULTS}, {settings.folder / PAGE}")
    if report.rehearsal:
        print("This was a rehearsal on a CPU; nothing was said about a GPU.")
    raise typer.Exit(report.exit_status)


def _limits(text: str) -> dict[str, float]:
    from workflows.gpu_check.run import LIMITS

    found = {}
    for word in filter(None, text.split(",")):
        name, _, seconds = word.partition("=")
        if name not in LIMITS or not seconds.replace(".", "", 1).isdigit():
            raise typer.BadParameter(f"--limits {word}: must be one of {', '.join(LIMITS)}, `=`, and seconds")
        found[name] = float(seconds)
    return found
