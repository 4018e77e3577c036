"""`srpo grade FILE`: the command line of :mod:`workflows.grade.verdicts`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from workflows.grade.verdicts import Graded

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    file: Annotated[
        Path,
        typer.Argument(
            help="Completions with their gold answers: JSON lines, JSON or Parquet.", exists=True, dir_okay=False
        ),
    ],
    reward: Annotated[
        str, typer.Option(help="pkg://module or a file with a reward function of verl's form.")
    ] = "pkg://reward_fns",
    reward_name: Annotated[str, typer.Option(help="The function's name.")] = "compute_score",
    reward_kwargs: Annotated[str, typer.Option(help="Its further arguments, as JSON.")] = "{}",
    source: Annotated[str | None, typer.Option(help="Data source of all rows, whatever they name.")] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Only the first so many rows.")] = None,
    show: Annotated[int, typer.Option(min=0, help="How many disputed completions the table shows.")] = 40,
    out: Annotated[Path | None, typer.Option(help="An HTML page with all completions.")] = None,
    threads: Annotated[int, typer.Option(min=1)] = 4,
) -> None:
    """Show what a reward function says to completions, why, and where other graders disagree.

    Beside the reward stand reward_fns in its strict and paper mode, verl's default and math-verify. A row has a
    solution (or completion, response, output), a ground_truth (or reward_model.ground_truth, gts, answer), a
    data_source, perhaps extra_info, and perhaps expected: the score it deserves. Ends with status 1 where the reward
    has not one verdict.
    """
    from reward_fns.workers import WorkerPool
    from srpo_verl.base.files import write_atomically
    from workflows.grade.completions import read_completions
    from workflows.grade.page import page
    from workflows.grade.verdicts import grade_all, of_mode, of_reward, rivals, why_undecided
    from workflows.json_option import json_object
    from workflows.reward_call import load_reward

    console, errors = Console(), Console(stderr=True)
    pool = WorkerPool("math_verify")
    try:
        items = read_completions(file, source, rows)
        graders = {"reward": of_reward(load_reward(reward, reward_name, json_object(reward_kwargs, "--reward-kwargs")))}
        graders |= {"strict": of_mode("strict"), "paper": of_mode("paper"), **rivals(pool)}
        with Progress(console=errors, transient=True) as bar:
            task = bar.add_task("grading", total=len(items))
            graded = grade_all(items, graders, threads, lambda: bar.advance(task))
    except (ValueError, TypeError, KeyError) as error:
        errors.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    finally:
        pool.close()
    console.print(_totals(graded))
    disputed = [(number, row) for number, row in enumerate(graded, 1) if row.disputed]
    if disputed[:show]:
        console.print(_disputes(disputed[:show]))
    if len(disputed) > show:
        console.print(f"... and {len(disputed) - show} more; --out FILE.html has all of them", highlight=False)
    if out is not None:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(out, page(graded, f"Verdicts on {file.name}"))
        except OSError as error:
            errors.print(f"cannot write {out}: {error.strerror}", style="red", markup=False, soft_wrap=True)
            raise typer.Exit(1) from error
        console.print(f"{out}: {len(graded)} completions", highlight=False)
    if undecided := why_undecided(graded):
        errors.print(undecided, markup=False, highlight=False, soft_wrap=True)
    if all(row.undecided for row in graded):
        raise typer.Exit(1)


def _totals(graded: list[Graded]) -> Table:
    from workflows.grade.verdicts import summary

    rows = summary(graded)
    table = Table(title=f"{len(graded)} completions")
    columns = ["right", "wrong", "no verdict", "unlike the reward", "unlike the file"]
    table.add_column("grader")
    for name in columns[: len(columns) - (rows[0][5] is None)]:
        table.add_column(name, justify="right")
    for name, *counts in rows:
        table.add_row(name, *(str(count) for count in counts if count is not None))
    return table


def _disputes(rows: list[tuple[int, Graded]]) -> Table:
    # Row numbers and verdicts are whole at 80 columns; the texts share what is left.
    table = Table(title="Judged differently", box=None, padding=(0, 1, 0, 0))
    graders = list(rows[0][1].verdicts)
    for name in ("row", "source", "gold", "read", *graders, "expected", "why"):
        least = len(name) if name in ("row", *graders) else None
        table.add_column(name, overflow="ellipsis", no_wrap=True, min_width=least, max_width=28)
    for number, row in rows:
        first = next(iter(row.verdicts.values()))
        expected = "" if row.completion.expected is None else f"{row.completion.expected:g}"
        words = [verdict.word for verdict in row.verdicts.values()]
        reason = " ".join(first.reason.split())
        cells = [str(number), row.completion.source, _short(row.completion.gold), _short(first.pred), *words, expected]
        table.add_row(*map(_plain, [*cells, reason]))
    return table


def _short(value: object) -> str:
    return " ".join(str(value).split())[-60:]


def _plain(text: str) -> str:
    """Text without rich's markup and without control characters of a completion."""
    return "".join(char if char.isprintable() else " " for char in text).replace("[", "\\[")
