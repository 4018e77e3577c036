"""`srpo evaluate MODEL DATA`: the command line of :func:`workflows.evaluate.pipeline.evaluate`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    model: Annotated[
        str, typer.Argument(help="Hugging Face folder or name, a checkpoint (global_step_N), or a run's folder.")
    ],
    data: Annotated[Path, typer.Argument(help="Parquet file in verl's schema, as srpo prepare writes it.")],
    out: Annotated[Path, typer.Option(help="Folder for items.jsonl and summary.json.")],
    n: Annotated[int, typer.Option("-n", "--samples", min=1, help="Answers per question.")] = 16,
    temperature: Annotated[float, typer.Option(min=0)] = 0.6,
    top_p: Annotated[float, typer.Option(min=0, max=1)] = 0.95,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of one answer.")] = 8192,
    seed: Annotated[int, typer.Option(help="Of sampling and intervals.")] = 0,
    chat_template_kwargs: Annotated[
        str, typer.Option(help="verl's data.apply_chat_template_kwargs, as JSON.")
    ] = '{"enable_thinking": false}',
    reward: Annotated[
        str, typer.Option(help="pkg://module or a file with a reward function of verl's form.")
    ] = "pkg://reward_fns",
    reward_name: Annotated[str, typer.Option(help="The function's name.")] = "compute_score",
    reward_kwargs: Annotated[str, typer.Option(help="Its further arguments, as JSON.")] = "{}",
    rows: Annotated[int | None, typer.Option(min=1, help="Only the first so many questions.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Questions at a time: what a kill can lose.")] = 64,
    tensor_parallel: Annotated[int, typer.Option(min=1, help="GPUs that the model is spread over.")] = 1,
    max_model_len: Annotated[
        int | None, typer.Option(min=1, help="Positions to load the model with; less needs less memory.")
    ] = None,
    gpu_memory_utilization: Annotated[float, typer.Option(min=0.05, max=1, help="Share of a GPU for vLLM.")] = 0.9,
    dtype: Annotated[str, typer.Option(help="auto: the model's own on a GPU, float32 on a CPU.")] = "auto",
) -> None:
    """Sample answers with vLLM, grade them, and report avg@n, pass@k, maj@n with 95 % intervals over questions.

    The defaults are the paper's protocol. Stopped and started again with the same --out, it goes on where it was.
    A checkpoint of verl's FSDP engine is merged first, by verl's own merger (in bfloat16).
    """
    from reward_fns.registry import UnknownDataSource
    from srpo_verl.base.lease import FolderTakenError, LeaseLostError
    from workflows.evaluate.checkpoint import resolve_model
    from workflows.evaluate.engine import Sampling, VLLMEngine
    from workflows.evaluate.pipeline import describe, evaluate, read_rows
    from workflows.evaluate.summary import table
    from workflows.json_option import json_object
    from workflows.reward_call import load_reward

    warnings.simplefilter("ignore")  # verl's, about engines that are not installed
    console, errors = Console(), Console(stderr=True)
    template, extra = (
        json_object(chat_template_kwargs, "--chat-template-kwargs"),
        json_object(reward_kwargs, "--reward-kwargs"),
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        sampling = Sampling(n, temperature, top_p, max_tokens, seed, template)
        questions = read_rows(data, rows)
        function = load_reward(reward, reward_name, extra)
        with Progress(*columns, TimeRemainingColumn(), console=errors) as bar:
            task = bar.add_task("finding or merging the model", total=None)
            folder = resolve_model(model)
            others: dict[str, Any] = {"dtype": dtype, "reward": [reward, reward_name, extra]}

            def load() -> VLLMEngine:
                bar.update(task, description="loading the model")
                return VLLMEngine(
                    folder, sampling, tensor_parallel=tensor_parallel, max_model_len=max_model_len,
                    gpu_memory_utilization=gpu_memory_utilization, dtype=dtype,
                )  # fmt: skip

            def show(done: int, total: int) -> None:
                bar.update(task, description="questions", completed=done, total=total)

            summary = evaluate(
                questions, out, engine=load, reward=function, sampling=sampling, batch=batch, progress=show,
                settings=describe(folder, data, len(questions), **others),
                tell=lambda text: errors.print(text, markup=False, highlight=False, soft_wrap=True),
            )  # fmt: skip
    except (FolderTakenError, LeaseLostError) as error:
        errors.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    except (ValueError, UnknownDataSource, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.filename is None else None
        errors.print(reason or str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    console.print(table(summary), highlight=False)
    console.print(f"{out / 'summary.json'}\n{out / 'items.jsonl'}", highlight=False, markup=False, soft_wrap=True)
