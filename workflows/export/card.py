"""The model card: what the run recorded of itself, and nothing else. What was not recorded is said to be not recorded.

Paths of data and models keep their last two parts: a card is read by others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

import jinja2
from huggingface_hub import ModelCardData
from omegaconf import OmegaConf

from workflows.report.labels import method_of, model_of, seed_of
from workflows.report.run_clock import run_clock
from workflows.run_folder import SUMMARY
from workflows.run_reader import Run

CARD = "README.md"
UNKNOWN = "not recorded"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
NOT_ON_THE_HUB = "FOLDER OF THE BASE MODEL"


def hub_name(run: Run) -> str | None:
    """The trained model's name on the hub; None for a folder, which is on no other machine."""
    path = str(run.get("actor_rollout_ref.model.path", ""))
    return path if _HUB_NAME.fullmatch(path) and not Path(path).exists() else None


def model_card(run: Run, step: int, *, name: str, adapter: bool = False) -> str:
    """The card, Markdown with the hub's metadata, of a run's checkpoint after `step` updates.

    Args:
        name: of the exported folder.
        adapter: whether it holds the adapter alone.
    """
    records = [record for record in run.records if record.step <= step]
    held_out = {record.step: found for record in records if (found := record.held_out())}
    sources = sorted({source for found in held_out.values() for source in found})
    metrics = sorted({metric for record in records for metric in record.held_out_names().values()})
    differences = run.record.get("differs_from_table_3")
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    template = resources.files(__package__).joinpath("card.md.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        metadata=metadata(run, adapter),
        name=name,
        adapter=adapter,
        rank=run.get("actor_rollout_ref.model.lora_rank", UNKNOWN),
        base=f"`{hub_name(run)}`" if hub_name(run) else f"a local model (`{model_of(run)}`)",
        base_path=hub_name(run) or NOT_ON_THE_HUB,
        method=method_of(run),
        step=step,
        facts=[(key, cell(value)) for key, value in facts(run, step)],
        sampling=f"{validation(run)} Metrics: {', '.join(f'`{metric}`' for metric in metrics)}.",
        sources=[cell(source) for source in sources],
        accuracies=[
            [at, *(f"{100 * found[source]:.1f} %" if source in found else "-" for source in sources)]
            for at, found in sorted(held_out.items())
        ],
        differences=None
        if differences is None
        else [(key, cell(paper), cell(here)) for key, (paper, here) in sorted(differences.items())],
        variants=sorted((run.record.get("variants") or {}).items()),
        problems=run.problems,
        template=template_arguments(run),
    )


def metadata(run: Run, adapter: bool) -> str:
    """The YAML that the hub reads. The licence is not in it: the run does not know it."""
    data = ModelCardData(
        base_model=hub_name(run),
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["srpo_verl", "verl", "reinforcement-learning"],
    )
    return data.to_yaml()


def facts(run: Run, step: int) -> Iterator[tuple[str, Any]]:
    """What the run was, as (name, value); values are None where they were not recorded."""
    record = run.record
    yield "method", method_of(run)
    yield "config", config_name(run)
    yield "steps", f"{step} of {planned}" if (planned := run.get("trainer.total_training_steps")) else step
    hours = run_clock([found for found in run.records if found.step <= step]).total / 3600
    yield "training time, without validation and checkpoints", f"{hours:.2f} h" if hours else None
    yield "trained on", files(run.get("data.train_files"))
    yield "validated on", files(run.get("data.val_files"))
    prompts, rollouts = run.get("data.train_batch_size"), run.get("actor_rollout_ref.rollout.n")
    yield "prompts x answers per step", f"{prompts} x {rollouts}" if prompts and rollouts else None
    yield "longest answer, tokens", run.get("data.max_response_length")
    yield "learning rate", run.get("actor_rollout_ref.actor.optim.lr")
    yield "teacher", teacher(run)
    if rank := run.get("actor_rollout_ref.model.lora_rank"):
        yield "LoRA rank, alpha", f"{rank}, {run.get('actor_rollout_ref.model.lora_alpha', UNKNOWN)}"
    yield "seed of the data", seed_of(run)
    yield "starts", run.starts
    versions = record.get("versions") or {}
    yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items()) or None
    yield "Python", record.get("python")
    git = record.get("git") or {}
    changed = ", with changes that were not committed" if git.get("dirty") else ""
    yield "commit of the working folder", f"`{git['commit']}`{changed}" if git.get("commit") else None


def config_name(run: Run) -> str | None:
    """The name of the config, which `srpo train` writes into its summary, else the experiment's."""
    summary = run.folder / SUMMARY
    if summary.is_file():
        try:
            return f"`{json.loads(summary.read_text())['config_name']}`"
        except (ValueError, KeyError, TypeError):
            run.problems.append(f"{SUMMARY} cannot be read")
    experiment = run.get("trainer.experiment_name")
    return f"experiment `{experiment}`" if experiment else None


def teacher(run: Run) -> str | None:
    """Kind and what belongs to it; none where nothing is distilled."""
    if (
        run.get("srpo.route") == "none"
        and not run.get("srpo.advantage_mix")
        and run.get("srpo.asked", "none") == "none"
    ):
        return "none"
    kind = run.get("srpo.teacher.kind")
    rate = run.get("srpo.teacher.ema_rate")
    return f"{kind}, rate {rate}" if kind == "ema" and rate is not None else kind


def validation(run: Run) -> str:
    """How the answers of the validations were sampled."""
    settings = run.get("actor_rollout_ref.rollout.val_kwargs")
    names = (("n", "answers per question"), ("temperature", "temperature"), ("top_p", "top-p"))
    found = [f"{word} {settings[key]}" for key, word in names if settings is not None and key in settings]
    return f"Sampled with {', '.join(found)}." if found else "How the answers were sampled was not recorded."


def files(named: Any) -> str | None:
    """Data files by their last two parts."""
    several = [named] if isinstance(named, str) else [str(path) for path in named or []]
    return ", ".join(f"`{'/'.join(PurePosixPath(path).parts[-2:])}`" for path in several) or None


def template_arguments(run: Run) -> str:
    """The chat template's arguments in training, as Python's."""
    given: Any = run.get("data.apply_chat_template_kwargs")
    found: Any = OmegaConf.to_object(given) if OmegaConf.is_config(given) else {}
    return "".join(f", {key!s}={value!r}" for key, value in found.items()) if isinstance(found, dict) else ""


def cell(value: Any) -> str:
    """As text of a table's cell."""
    return UNKNOWN if value is None else str(value).replace("|", "\\|").replace("\n", " ")
