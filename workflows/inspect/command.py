"""`srpo inspect`: options to `build_page`, errors to sentences."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    run: Annotated[Path, typer.Argument(help="Folder of a run that was started with srpo.inspect_dir.")],
    step: Annotated[int | None, typer.Option(min=1, help="A step that was dumped; the last by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="The page; step-N.html in the run's folder by default.")] = None,
    show: Annotated[bool, typer.Option("--open/--no-open", help="Show it in this machine's browser.")] = False,
) -> None:
    """A training step token by token, as one HTML page that works offline: routes, teacher prompts, weights."""
    from workflows.inspect.page import build_page

    console = Console()
    try:
        path = build_page(run, out, step=step)
    except (OSError, ValueError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    console.print(str(path), markup=False, highlight=False, soft_wrap=True)
    if show and not webbrowser.open(path.absolute().as_uri()):
        console.print("no browser could be opened here; open the file by hand", style="yellow")


if __name__ == "__main__":
    app()
