"""A run with checkpoints of the tiny model, without training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from srpo_verl.training.durable import checkpoint_store
from tests.workflows.report.run_folders import write_run

TOKEN = "drawn at the start"


def begin_checkpoint(run: Path, step: int) -> Path:
    """A checkpoint whose save has begun; returns its `actor`."""
    folder = checkpoint_store.step_folder(run, step)
    checkpoint_store.begin(folder, step)
    (folder / "actor" / "huggingface").mkdir(parents=True)
    (folder / "actor" / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": 1}))
    return folder / "actor"


def write_checkpoint(run: Path, step: int, model: Path, *, accuracy: float | None = None) -> Path:
    """A whole checkpoint that was saved with `hf_model`; returns its `actor`."""
    actor = begin_checkpoint(run, step)
    shutil.copytree(model, actor / "huggingface", dirs_exist_ok=True)
    whole = checkpoint_store.finish(actor.parent, step=step, run=TOKEN)
    if accuracy is not None:
        checkpoint_store.note_validation(whole, accuracy)
    return actor


def write_trained(folder: Path, model: Path, *steps: int) -> Path:
    """A run of 20 steps, and checkpoints."""
    write_run(folder, "srpo", steps=20)
    for step in steps:
        write_checkpoint(folder, step, model)
    return folder
