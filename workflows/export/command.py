"""`srpo export RUN --to FOLDER`: the command line of :func:`workflows.export.export.export`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    run: Annotated[Path, typer.Argument(help="Folder of the run (--out of srpo train); it may be going on.")],
    to: Annotated[Path, typer.Option(help="The new folder.")],
    step: Annotated[int | None, typer.Option(min=1, help="Of the checkpoint; the newest whole one by default.")] = None,
    best: Annotated[bool, typer.Option("--best", help="The checkpoint with the best validation.")] = False,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="The LoRA adapter alone; by default it is merged into its base.")
    ] = False,
    push_to: Annotated[
        str | None, typer.Option("--push", help="OWNER/NAME of a hub repository: upload it there too, with your token.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="With --push: everybody may see it. Private by default.")
    ] = False,
) -> None:
    """Merge a checkpoint, and write weights (safetensors, bfloat16), tokenizer, chat template and model card.

    The card has what the run recorded: method, data, steps, held-out accuracy by step, versions, commit.
    """
    from workflows.evaluate.held_checkpoint import CheckpointError
    from workflows.export.card import hub_name
    from workflows.export.export import export
    from workflows.export.push import PushError, check_push, push
    from workflows.run_reader import read_run

    warnings.simplefilter("ignore")  # verl's, about engines that are not installed
    console, errors = Console(), Console(stderr=True)
    if step is not None and best:
        raise typer.BadParameter("--step and --best name two checkpoints: give one of them")
    if public and push_to is None:
        raise typer.BadParameter("--public says who sees what --push uploads: give both, or neither")

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    try:
        if push_to is not None:
            check_push(push_to)
            if adapter and hub_name(read_run(run)) is None:
                raise PushError(
                    "--push --adapter: its base model is a folder, which is on no other machine. Push the whole model: "
                    "leave --adapter out"
                )
        done = export(run, to, step=step, best=best, adapter=adapter)
        say(f"{done.folder}: the model of step {done.step}, {len(done.files)} files, {sum(done.files.values())} bytes")
        if push_to is not None:
            say(push(done.folder, done.files, push_to, step=done.step, public=public, tell=say))
    except (CheckpointError, PushError, ValueError, OSError) as error:
        errors.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
