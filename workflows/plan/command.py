"""`srpo plan CONFIG [overrides...] --gpu H20`."""

from __future__ import annotations

import json
import warnings
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from srpo_verl.launch.hardware import installed
from workflows.compose_config import ConfigError, compose_config
from workflows.plan.advice import Change, advise
from workflows.plan.gpus import GIB, GPU, GPUS, gpu_called, gpu_of
from workflows.plan.memory import Moment
from workflows.plan.plan import Plan, plan_config
from workflows.plan.shapes import KNOWN
from workflows.verl_run import hydra_value

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    config_name: Annotated[str, typer.Argument(help="Which config, e.g. srpo.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Hydra overrides, as for training.")] = None,
    gpu: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(GPUS)}; by default the one of this machine.")
    ] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="trainer.nnodes")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="trainer.n_gpus_per_node")] = None,
    model: Annotated[
        str | None, typer.Option(help=f"A folder with a config.json, or one of {', '.join(KNOWN)}.")
    ] = None,
    response_tokens: Annotated[
        float | None, typer.Option(min=1, help="Mean response length; an eighth of its limit by default.")
    ] = None,
    prompt_tokens: Annotated[
        float | None, typer.Option(min=1, help="Mean prompt length; a quarter of its limit by default.")
    ] = None,
    routed: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of rollouts that are distilled; 0.4 for SRPO by default.")
    ] = None,
    expected: Annotated[
        bool, typer.Option("--expected", help="Memory for rollouts of the mean lengths, not for the worst case.")
    ] = False,
    flash_attn: Annotated[
        bool | None,
        typer.Option(
            help="Plan with flash-attn; without it the loss copies the logits and packed rollouts have a mask. "
            "By default with it if --gpu is given, else as it is installed here."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON (bytes and seconds).")] = False,
) -> None:
    """GPU memory by part and moment, host memory, disk and seconds per step of a config. Nothing is started.

    Memory is the worst case: full micro-batches of the longest rollouts. Seconds are for mean lengths and an assumed
    utilisation. What is computed and what assumed: docs/planning.md. Exit code 1 if the run does not fit; then it is
    said which key to change to which value.
    """
    warnings.simplefilter("ignore")
    extra = [f"trainer.nnodes={nodes}"] if nodes else []
    extra += [f"trainer.n_gpus_per_node={gpus}"] if gpus else []
    extra += [f"actor_rollout_ref.model.path={hydra_value(model)}"] if model else []
    try:
        config = compose_config(config_name, [*(overrides or ()), *extra])
        chosen = None if config.trainer.device == "cpu" else gpu_of(gpu) if gpu else gpu_here()
        plan = plan_config(
            config,
            chosen,
            routed=routed,
            response=response_tokens,
            prompt=prompt_tokens,
            flash_cross_entropy=has_flash_attn(gpu) if flash_attn is None else flash_attn,
            expected=expected,
        )
    except (ConfigError, ValueError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    changes = advise(plan)
    if as_json:
        said = [{"overrides": change.overrides, "fits": change.fits} for change in changes]
        print(json.dumps({**plan.as_dict(), "changes": said}, indent=1))
    else:
        show(plan, changes, Console())
    if plan.misfits():
        raise typer.Exit(1)


def has_flash_attn(gpu: str | None = None) -> bool:
    """Whether flash-attn is installed here; it is assumed for a GPU that is named."""
    return gpu is not None or installed("flash-attn")


def gpu_here() -> GPU | None:
    """The GPU of this machine, if the table has it."""
    import torch

    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(0)
    if (gpu := gpu_called(found.name, found.total_memory)) is None:
        raise ValueError(f"this machine's {found.name} is not in the table: give --gpu, one of {', '.join(GPUS)}")
    return gpu


def show(plan: Plan, changes: list[Change], console: Console) -> None:
    """Tables: memory of a GPU by moment, host and disk, seconds; then what does not fit and what to change."""
    settings = plan.settings
    cluster = f"{settings.nodes} x {settings.ranks_per_node} {plan.gpu.name}"
    console.print(
        f"{settings.shape.parameters / 1e9:.3g} billion parameters on {'this CPU' if settings.cpu else cluster}; "
        f"{settings.prompts} x {settings.group} rollouts per step, {plan.lengths.prompt:.0f} + "
        f"{plan.lengths.response:.0f} tokens on average, {plan.routed:.0%} distilled\n",
        highlight=False,
    )
    if plan.engine:
        _show_parts(plan.moments, f"GiB per GPU, of {plan.gpu.memory / GIB:.1f}", console)
        sequences = plan.engine.cache_tokens / settings.max_model_len
        console.print(
            f"vLLM's cache holds {plan.engine.cache_tokens:,.0f} tokens: {sequences:.1f} of the longest sequences\n",
            highlight=False,
        )
    else:
        _show_parts([plan.host.worker], "GiB of the trainer worker", console)
        console.print()
    table = Table(title="GiB per host", title_justify="left", box=None, show_header=False)
    for name, size in sorted(plan.host.parts.items(), key=lambda item: -item[1]):
        table.add_row(name, _gib(size))
    table.add_row("total", f"[bold]{_gib(plan.host.total)}[/]")
    console.print(table)
    console.print(f"disk: {_gib(plan.disk)} GiB per checkpoint\n", highlight=False)
    table = Table(title="seconds per step (estimate)", title_justify="left", box=None, show_header=False)
    for name, seconds in plan.seconds.items():
        table.add_row(name, f"{seconds:.1f}")
    table.add_row("step", f"[bold]{plan.step_seconds:.1f}[/]")
    console.print(table)
    for note in plan.notes():
        console.print(f"\n{note}", highlight=False, soft_wrap=True)
    misfits = plan.misfits()
    if not misfits:
        console.print("\nfits", style="green")
        return
    console.print("\ndoes not fit:", style="red")
    for misfit in misfits:
        console.print(f"  {misfit}", highlight=False, soft_wrap=True)
    if not changes:
        console.print("no setting mends it: take a smaller model, or GPUs with more memory")
        return
    console.print("it fits with any one of:" if changes[0].fits else "closest, and it still does not fit:")
    for change in changes:
        peak = change.plan.peak.total if change.plan.peak else change.plan.host.total
        console.print(
            f"  {' '.join(change.overrides)}   ({_gib(peak)} GiB, {change.plan.step_seconds:.0f} s per step)",
            highlight=False,
            soft_wrap=True,
        )


def _show_parts(moments: list[Moment], title: str, console: Console) -> None:
    """One row per moment: its total, and its parts from the largest to the smallest."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("moment")
    table.add_column("total", justify="right")
    table.add_column("of which")
    for moment in moments:
        parts = sorted(moment.parts.items(), key=lambda item: -item[1])
        table.add_row(
            moment.name,
            f"[bold]{_gib(moment.total)}[/]",
            ", ".join(f"{name} {_gib(size)}" for name, size in parts if size),
        )
    console.print(table)


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}" if size >= 0.05 * GIB or size == 0 else f"{size / GIB:.2f}"
