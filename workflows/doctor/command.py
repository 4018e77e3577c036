"""`srpo doctor [CONFIG_NAME] [overrides...]`, `srpo doctor --gpu`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from workflows.compose_config import ConfigError, compose_config
from workflows.doctor.check import Check, Status
from workflows.doctor.checks import run_checks

COLOURS = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red"}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    config_name: Annotated[
        str | None, typer.Argument(help="A config to look at too, e.g. srpo_tiny. Without: this machine only.")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="Hydra overrides, e.g. platform=cpu")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not import vLLM or start Ray (saves half a minute).")
    ] = False,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Run `make gpu-check` instead: what works on this machine's GPU, in minutes.")
    ] = False,
) -> None:
    """What is wrong with this machine or this config, and how to mend it.

    Looks at installed versions, verl's plugin, GPUs, vLLM, Ray, memory, shared memory, disk, ports and the code
    sandbox; with a config also at its settings, data files, model, tokenizer and output folder. Nothing is changed.
    Exit code 1 if a check failed (warnings do not count), 2 if the config cannot be composed.
    """
    if gpu:
        from workflows.gpu_check.command import FOLDER, check_gpu
        from workflows.gpu_check.settings import Settings

        check_gpu(Settings("gpu", FOLDER.absolute()))
    console = Console(stderr=as_json)
    warnings.simplefilter("ignore")  # verl's, about engines that are not installed
    config = None
    if config_name is not None:
        try:
            config = compose_config(config_name, overrides or ())
        except ConfigError as error:
            Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(2) from error
    with console.status("checking") as status:
        found = run_checks(config, start_engines=not quick, on_check=lambda name: status.update(f"checking {name}"))
    if as_json:
        print(json.dumps([asdict(check) for check in found], indent=1))
    else:
        show(found, console)
    if any(check.status is Status.FAIL for check in found):
        raise typer.Exit(1)


def show(found: Sequence[Check], console: Console) -> None:
    """A table, and one line that counts."""
    table = Table(show_lines=False, pad_edge=False, box=None)
    for heading in ("check", "", "found, and how to mend it"):
        table.add_column(heading, overflow="fold")
    for check in found:
        colour = COLOURS[check.status]
        text = escape(check.found) + (f"\n  [bold]→ {escape(check.mend)}[/]" if check.mend else "")
        table.add_row(check.name, f"[{colour}]{check.status}[/]", text)
    console.print(table)
    failed, warned = (sum(check.status is status for check in found) for status in (Status.FAIL, Status.WARN))
    console.print(f"{len(found)} findings, {failed} failed, {warned} to look at" if failed or warned else "all is well")
