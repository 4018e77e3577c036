"""The `srpo` command. A subcommand's module is imported when it is called, so that `srpo --help` is quick.

Each subcommand is a typer app `app` with one command, in `workflows/<name>/command.py`.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

# In the order in which a researcher walks them.
COMMANDS = {
    "demo": ("workflows.demo", "Train a tiny model with SRPO on this machine's CPU, in minutes."),
    "doctor": ("workflows.doctor.command", "What is wrong with this machine or config, and how to mend it."),
    "plan": ("workflows.plan.command", "GPU memory and seconds per step of a config, before anything starts."),
    "prepare": ("workflows.prepare.command", "A benchmark from the hub or local files to verl parquet."),
    "grade": ("workflows.grade.command", "What a reward says to a file of completions, and where graders disagree."),
    "train": ("workflows.train.command", "Check, then train: `verl.trainer.main_ppo` with one of our configs."),
    "attach": ("workflows.live.attach", "Show a run that is going on, with or without --detach, anywhere."),
    "stop": ("workflows.live.stop", "End a run with a checkpoint, on this machine or another."),
    "status": ("workflows.live.status", "Runs, who has them, their steps and last signs of life."),
    "evaluate": ("workflows.evaluate.command", "avg@k, pass@k, maj@k of a model or checkpoint on a data set."),
    "export": ("workflows.export.command", "A checkpoint's model with its card as a folder, and on the hub."),
    "report": ("workflows.report.command", "Tables, curves and rollouts of one or many runs, as one HTML page."),
    "inspect": ("workflows.inspect.command", "One training step, token by token, as one HTML page."),
    "reproduce": ("workflows.reproduce.command", "A grid of runs (the paper's, or yours), resumable."),
}


class LazyGroup(TyperGroup):
    """A group that knows its commands by name and loads them on demand.

    Contexts and formatters are typed Any: which click they belong to is typer's own affair.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command = typer.main.get_command(import_module(module).app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


app = typer.Typer(
    cls=LazyGroup,
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="SRPO on verl: from a data set to the paper's tables. `srpo COMMAND --help` explains a command.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from workflows.version import version_line

        typer.echo(version_line())
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="What is installed.")
    ] = False,
) -> None:
    os.environ.setdefault("MPLBACKEND", "Agg")


if __name__ == "__main__":
    app()
