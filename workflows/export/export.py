"""The model of a checkpoint as a folder: weights, tokenizer, chat template, generation config and model card.

The weights are those that `srpo evaluate` loads: FSDP shards merged by verl's own merger in bfloat16, an adapter added.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from srpo_verl.training.durable.checkpoint_store import read_best, step_of
from workflows.evaluate.adapter import ADAPTER
from workflows.evaluate.checkpoint import check_whole, find_actor, merge, saved_model
from workflows.evaluate.held_checkpoint import CheckpointError, hold
from workflows.export.card import CARD, model_card
from workflows.run_reader import Run, read_run


@dataclass(frozen=True)
class Exported:
    """A finished export; `files` are bytes by name."""

    folder: Path
    step: int
    files: dict[str, int]


def export(
    run_folder: Path, to: Path, *, step: int | None = None, best: bool = False, adapter: bool = False
) -> Exported:
    """Writes the model of a run's checkpoint to `to`, which is whole or absent.

    The run may go on meanwhile: only a checkpoint that is whole is read, and it is not removed before this has ended.

    Args:
        run_folder: the run's (`trainer.default_local_dir`).
        to: the new folder; it may be there if it is empty.
        step: of the checkpoint; None takes the newest whole one.
        best: takes the one with the best validation instead.
        adapter: the LoRA adapter alone, without the weights it is added to.

    Raises:
        FileNotFoundError: the folder holds no run.
        FileExistsError: `to` is not empty, a link, a mount or the working folder.
        workflows.evaluate.held_checkpoint.CheckpointError: there is no such checkpoint, it is not whole, or has no
            adapter where one is wanted, or nothing but an adapter.
        OSError: a folder cannot be written.
    """
    run = read_run(run_folder)
    if to.is_symlink() or to.is_mount() or to.absolute() == Path.cwd():
        raise FileExistsError(
            f"{to} is a link, a mount or the folder you are in, whose place nothing can take: name a folder in it"
        )
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise FileExistsError(f"{to} is there and not empty: name another --to")
    actor = find_actor(choose(run, step, best))
    with hold(actor.parent, "exporting"):
        source = weights(actor)
        if adapter and not (source / ADAPTER).is_dir():
            raise CheckpointError(f"{actor} has no adapter: the run trained all weights. Leave --adapter out")
        taken = step_of(actor.parent) or 0
        to.parent.mkdir(parents=True, exist_ok=True)
        partial = to.with_name(f".{to.name}.{os.getpid()}")
        try:
            partial.mkdir()
            copy_adapter(source, partial, base(run)) if adapter else copy_model(source, partial)
            card = model_card(read_run(run_folder, at_step=taken), taken, name=to.name, adapter=adapter)
            (partial / CARD).write_text(card, encoding="utf-8")
            partial.replace(to)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return Exported(to, taken, {file.name: file.stat().st_size for file in sorted(to.iterdir())})


def weights(actor: Path) -> Path:
    """The folder of the merged shards. Where the run saved no shards, the model that it saved, in its own dtype.

    Raises CheckpointError.
    """
    saved = saved_model(actor)
    if saved is not None and not any(actor.glob("model_world_size_*_rank_*.pt")):
        return saved
    check_whole(actor)
    return merge(actor)


def choose(run: Run, step: int | None, best: bool) -> Path:
    """The checkpoint that is meant, or the folder of all of them. Raises CheckpointError if it is not there."""
    root = run.checkpoints
    if best:
        found = read_best(root)
        if found is None:
            raise CheckpointError(
                f"{root} has no best checkpoint: none was validated when it was saved. Name one with --step"
            )
        step = int(found["step"])
    there = sorted(n for folder in root.glob("global_step_*") if folder.is_dir() and (n := step_of(folder)) is not None)
    if not there:
        raise CheckpointError(f"{run.folder} has no checkpoint yet (trainer.save_freq): there is nothing to export")
    if step is None:
        return root
    if step not in there:
        raise CheckpointError(f"{root} has no checkpoint of step {step}; there are {', '.join(map(str, there))}")
    return root / f"global_step_{step}"


def base(run: Run) -> str:
    """The model that was trained, as the config names it."""
    return str(run.get("actor_rollout_ref.model.path", "unknown"))


def copy_model(source: Path, to: Path) -> None:
    """The files of a Hugging Face folder; folders in it (an adapter that is added already) are left out."""
    for file in source.iterdir():
        if file.is_file():
            shutil.copyfile(file, to / file.name)


def copy_adapter(source: Path, to: Path, base_model: str) -> None:
    """The adapter with the name of its base, and the tokenizer."""
    not_tokenizer = ("config.json", "generation_config.json")
    for file in source.iterdir():
        if file.is_file() and ".safetensors" not in file.name and file.name not in not_tokenizer:
            shutil.copyfile(file, to / file.name)
    for file in (source / ADAPTER).iterdir():
        shutil.copyfile(file, to / file.name)
    described = to / "adapter_config.json"
    settings = {**json.loads(described.read_text()), "base_model_name_or_path": base_model}
    described.write_text(json.dumps(settings, indent=2) + "\n")
