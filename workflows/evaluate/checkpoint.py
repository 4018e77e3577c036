"""A folder that vLLM can load, from whatever a person names: a model, a checkpoint of verl's, or a run's folder.

verl saves FSDP shards: `global_step_N/actor/{fsdp_config.json, model_world_size_W_rank_R.pt, huggingface/}`. Its own
merger makes a Hugging Face folder of them, in bfloat16, which is kept in `actor/hf_merged`. An adapter is added to the
weights there, and is kept beside them in `lora_adapter`.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from srpo_verl.base.lease import FolderTakenError, take
from srpo_verl.training.durable.checkpoint_store import MARKER, broken, newest, step_of
from workflows.evaluate.held_checkpoint import CheckpointError, hold
from workflows.run_errors import explain

MERGED = "hf_merged"
LORA = "lora_train_meta.json"  # verl writes it beside the shards of a model with an adapter
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def resolve_model(wanted: str) -> str:
    """A folder with a Hugging Face model, or a name on the hub.

    Args:
        wanted: a Hugging Face folder, `global_step_N`, its `actor`, a folder of them (the newest whole one is taken),
            or a name on the hub.

    Raises:
        CheckpointError: nothing there, or a checkpoint that is not whole.
    """
    path = Path(wanted).expanduser()
    if not path.exists():
        if re.fullmatch(r"[\w.-]+/[\w.-]+", wanted):
            return wanted
        raise CheckpointError(f"{wanted}: there is no such folder, and it is no name on the hub (owner/model)")
    if is_model(path):
        return str(path)
    actor = find_actor(path)
    try:
        atexit.register(hold(actor.parent, "evaluating").release)
    except OSError as error:  # somebody else's, perhaps
        print(f"srpo: {actor.parent} cannot be marked ({error}): a run that goes on may remove it", file=sys.stderr)
    if ready := saved_model(actor):
        return str(ready)
    check_whole(actor)
    return str(merge(actor))


def saved_model(actor: Path) -> Path | None:
    """A model that needs no merging: saved with checkpoint.save_contents=[..., hf_model].

    With an adapter its weights have names that no model has.
    """
    ready = actor / "huggingface"
    return ready if is_model(ready) and not (actor / LORA).is_file() else None


def is_model(folder: Path) -> bool:
    """Whether a folder holds a configuration and weights of Hugging Face's form."""
    return (folder / "config.json").is_file() and any(any(folder.glob(pattern)) for pattern in _WEIGHTS)


def find_actor(path: Path) -> Path:
    """The `actor` folder that `path` means."""
    for candidate in (path, path / "actor"):
        if (candidate / "fsdp_config.json").is_file() or (candidate.name == "actor" and candidate.is_dir()):
            return candidate
    if re.fullmatch(r"global_step_\d+", path.name):
        raise CheckpointError(f"{path} has no actor folder: writing it did not end. Take an earlier checkpoint")
    places = (path, path / "checkpoints")
    for place in places:
        if found := newest(place):
            return found.folder / "actor"
    # Those of verl's own trainers have no marker; what has one is not whole.
    steps = [step for place in places for step in place.glob("global_step_*/actor") if step.is_dir()]
    unmarked = {step: n for step in steps if not (step.parent / MARKER).exists() and (n := step_of(step.parent))}
    if unmarked:
        return max(unmarked, key=lambda step: unmarked[step])
    if steps:
        reasons = "; ".join(f"{name}: {reason}" for place in places for name, reason in broken(place).items())
        raise CheckpointError(f"{path} holds no checkpoint that is whole ({reasons})")
    raise CheckpointError(
        f"{path} is neither a Hugging Face model (config.json and weights) nor a checkpoint of verl's "
        "(global_step_N/actor), nor does it hold one"
    )


def check_whole(actor: Path) -> None:
    """Raises CheckpointError naming what is missing or cut off."""
    settings = actor / "fsdp_config.json"
    again = "The run was ended while it wrote this checkpoint, or a copy is incomplete: take another one"
    if not settings.is_file():
        raise CheckpointError(f"{actor} has no fsdp_config.json. {again} (Megatron checkpoints are not read here)")
    try:
        ranks = int(json.loads(settings.read_text())["world_size"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{settings} cannot be read ({error}). {again}") from error
    for rank in range(ranks):
        shard = actor / f"model_world_size_{ranks}_rank_{rank}.pt"
        if not shard.is_file():
            raise CheckpointError(f"{shard} is missing, the checkpoint has {ranks} rank(s). {again}")
        if not zipfile.is_zipfile(shard):  # torch.save writes a zip; its directory is at the end
            raise CheckpointError(f"{shard} is cut off. {again}")
    if not (actor / "huggingface" / "config.json").is_file():
        raise CheckpointError(f"{actor / 'huggingface'} has no config.json. {again}")


def merge(actor: Path) -> Path:
    """`actor/hf_merged`, found, or made by `python -m verl.model_merger` under another name first; by one at a time.

    Raises CheckpointError.
    """
    if is_model(actor / MERGED):
        return actor / MERGED
    try:
        with take(actor.parent, what="merging").keep():
            return _merged(actor)
    except FolderTakenError as error:
        raise CheckpointError(str(error)) from error


def _merged(actor: Path) -> Path:
    if is_model(actor / MERGED):  # by now
        return actor / MERGED
    lora = (actor / LORA).is_file()
    if lora and not _has_base(actor):
        raise CheckpointError(
            f"{actor} holds the adapter alone (checkpoint.save_lora_only=true), which is no model without its base. "
            "Resume the run with save_lora_only=false for a checkpoint that holds both"
        )
    return _merge(actor, lora)


def _merge(actor: Path, lora: bool) -> Path:
    merged = actor / MERGED
    partial = actor / f".{MERGED}.{os.getpid()}"
    shutil.rmtree(merged, ignore_errors=True)
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
    command += ["--local_dir", str(actor), "--target_dir", str(partial)]
    try:
        _run(command, actor, partial)
        if lora:
            _run([sys.executable, "-m", "workflows.evaluate.adapter", str(partial)], actor, partial)
        partial.rename(merged)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return merged


def _has_base(actor: Path) -> bool:
    """Whether the shards of a model with an adapter name the weights that it is added to. Nothing is unpickled."""
    shard = next(actor.glob("model_world_size_*_rank_0.pt"))
    with zipfile.ZipFile(shard) as archive:
        (names,) = [member for member in archive.namelist() if member.endswith("/data.pkl")]
        return b".base_layer.weight" in archive.read(names)


def _run(command: list[str], actor: Path, made: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not is_model(made):
        raise CheckpointError(
            f"{command[2]} could not merge {actor}:\n{explain(done.stdout + done.stderr)}\nBy hand: {' '.join(command)}"
        )
