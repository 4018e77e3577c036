"""From which checkpoint a run goes on, and whether it can: decided from config and markers alone, before Ray starts.

The preflight says the answer, the trainer acts on it; both call `plan_resume`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from srpo_verl.base.versions import package_versions
from srpo_verl.config.lora import lora_settings
from srpo_verl.config.model_files import model_config
from srpo_verl.config.planned_steps import planned_steps, train_files
from srpo_verl.config.schema import SRPOConfig
from srpo_verl.training.durable import in_flight
from srpo_verl.training.durable.checkpoint_store import (
    MARKER,
    Checkpoint,
    IncompleteCheckpointError,
    UnfinishedSaveError,
    broken,
    complete,
    inspect,
    newest,
)
from srpo_verl.training.durable.run_record import foreign_variants

_MODEL_KEYS = (
    "architectures",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "tie_word_embeddings",
)
_DATA_KEYS = (
    "seed",
    "shuffle",
    "train_batch_size",
    "filter_overlong_prompts",
    "max_prompt_length",
    "train_max_samples",
)
_NOT_THE_ALGORITHM = (
    "checkpoint",
    "lease",
    "guards",
    "dump_dir",
    "dump_freq",
    "inspect_dir",
    "inspect_freq",
    "inspect_groups",
    "poll_interval",
    "chunk_size",
    "grad_norm_freq",
    "teacher_gain_freq",
    "metrics",
    "variant_modules",
)
_NOT_THE_TEACHER = ("max_token_len_per_gpu", "offload_policy", "param_offload")


@dataclass
class ResumePlan:
    """`checkpoint` is None for a fresh start, and for a folder without a marker that was named on purpose (`unmarked`).

    `finished` says, in words, that no step is left to train. `begins_anew`: a run that has nothing to go on from.
    """

    checkpoint: Checkpoint | None = None
    unmarked: Path | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    finished: str | None = None
    begins_anew: bool = False

    @property
    def folder(self) -> Path | None:
        return self.checkpoint.folder if self.checkpoint else self.unmarked


def plan_resume(config: DictConfig, srpo: SRPOConfig) -> ResumePlan:
    """What `trainer.resume_mode` means for this config and what is on disk now."""
    plan = ResumePlan()
    mode = config.trainer.resume_mode
    if mode == "auto":
        _newest(Path(config.trainer.default_local_dir).absolute(), plan)
        plan.begins_anew = plan.checkpoint is None
    elif mode == "resume_path":
        _named(config.trainer.resume_from_path, plan)
    elif mode == "disable":
        _fresh(Path(config.trainer.default_local_dir).absolute(), plan)
    else:
        plan.problems.append(f"trainer.resume_mode={mode} is not one of auto, resume_path, disable")
    if plan.problems or plan.folder is None:
        return plan
    if plan.checkpoint is not None:
        saved = plan.checkpoint.marker["identity"]
        plan.problems += _refused(saved, identity(config, srpo), srpo, plan.folder)
        plan.notes += _adapted(saved, identity(config, srpo), srpo)
    else:
        plan.problems += _without_marker(plan.folder, config, srpo)
    if plan.problems:
        return plan
    step, steps = _step(plan.folder), planned_steps(config)
    plan.notes.append(f"resuming from {plan.folder}, step {step}")
    if steps is not None and step >= steps and not config.trainer.val_only:
        nothing = (
            f"{plan.folder} is at step {step}, and the run ends at step {steps}: nothing is left to train. To train "
            "on, raise trainer.total_training_steps (or trainer.total_epochs); to start anew, set "
            "trainer.resume_mode=disable"
        )
        if config.trainer.val_before_train:
            plan.notes.append(f"{nothing}. It is validated once more (trainer.val_before_train=true)")
        else:
            plan.finished = nothing
    return plan


def identity(config: DictConfig, srpo: SRPOConfig) -> dict[str, Any]:
    """What a checkpoint depends on, as JSON; what JSON has no form for, as text."""
    described: dict[str, Any] = OmegaConf.to_container(OmegaConf.structured(srpo))  # type: ignore[assignment]
    teacher = described.pop("teacher")
    algorithm = {key: value for key, value in described.items() if key not in _NOT_THE_ALGORITHM}
    algorithm |= {f"teacher.{key}": value for key, value in teacher.items() if key not in _NOT_THE_TEACHER}
    data = {key: config.data.get(key) for key in _DATA_KEYS}
    lora = lora_settings(config)
    if lora is None:
        del algorithm["teacher.lora_ema"]
    found = {
        "ranks": config.trainer.nnodes * config.trainer.n_gpus_per_node,
        "model": _model(str(config.actor_rollout_ref.model.path)),
        "data": {**data, "files": [_file(path) for path in train_files(config)]},
        "in_flight": in_flight.storage_units(config),
        "lora": lora,
        "srpo": algorithm,
        "variants": foreign_variants(srpo, config.trainer.v1.trainer_mode),
        "lr": config.actor_rollout_ref.actor.optim.lr,
        "versions": package_versions(),
    }
    return json.loads(json.dumps(found, default=str))


def reads_on(saved: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether the place in the data that a checkpoint holds means something to this run. Both are `identity`."""
    return saved["data"] == now["data"] and not in_flight.other_loader(saved, now)


def _newest(root: Path, plan: ResumePlan) -> None:
    """The newest whole checkpoint, and what was passed over on the way to it."""
    damaged = broken(root)
    for name, reason in damaged.items():
        plan.notes.append(f"{root / name} is passed over: {reason}")
    plan.checkpoint = newest(root)
    if plan.checkpoint is None and any(not isinstance(reason, UnfinishedSaveError) for reason in damaged.values()):
        plan.problems.append(
            f"{root} has no complete checkpoint to resume from. Name one with trainer.resume_mode=resume_path and "
            "trainer.resume_from_path, or start anew with trainer.resume_mode=disable in another folder. "
            + "; ".join(f"{name}: {reason}" for name, reason in damaged.items())
        )


def _named(path: str | None, plan: ResumePlan) -> None:
    if not path or not re.search(r"global_step_\d+/?$", str(path)):
        plan.problems.append(
            f"trainer.resume_from_path={path}: with resume_mode=resume_path it must name a folder global_step_N"
        )
        return
    folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        plan.problems.append(f"trainer.resume_from_path={path}: there is no such folder")
        return
    try:
        plan.checkpoint = inspect(folder)
    except IncompleteCheckpointError as error:
        if (folder / MARKER).exists():
            plan.problems.append(f"trainer.resume_from_path={path} cannot be resumed from: {error}")
        else:
            plan.unmarked = folder
            plan.notes.append(f"{folder} {error}; it is loaded because it was named")


def _fresh(root: Path, plan: ResumePlan) -> None:
    if found := complete(root):
        plan.notes.append(
            f"trainer.resume_mode=disable, but {root} holds checkpoints of another run up to step "
            f"{max(checkpoint.step for checkpoint in found)}: those of the same step will be replaced. "
            "Choose another trainer.default_local_dir to keep them"
        )


def _without_marker(folder: Path, config: DictConfig, srpo: SRPOConfig) -> Iterator[str]:
    ranks = config.trainer.nnodes * config.trainer.n_gpus_per_node
    as_adapter = lora_settings(config) is not None and srpo.teacher.lora_ema == "adapter"
    files = ["actor/model", *(["teacher/adapter" if as_adapter else "teacher/model"] if srpo.moves_teacher else [])]
    missing = [
        name
        for file in files
        for rank in range(ranks)
        if not (folder / (name := f"{file}_world_size_{ranks}_rank_{rank}.pt")).is_file()
    ]
    if any(name.startswith("actor") for name in missing):
        yield f"{folder} lacks {missing[0]}: was it written by another number of ranks than {ranks}?"
    elif missing:
        yield _no_teacher(folder)


def _refused(saved: dict[str, Any], now: dict[str, Any], srpo: SRPOConfig, folder: Path) -> Iterator[str]:
    if saved["ranks"] != now["ranks"]:
        yield (
            f"{folder} was written by {saved['ranks']} ranks, this run has {now['ranks']}, and its files are shards: "
            f"set trainer.n_gpus_per_node * trainer.nnodes to {saved['ranks']}, or merge the shards with `python -m "
            "verl.model_merger merge` and start anew from the merged model"
        )
    both = saved["model"].keys() & now["model"].keys() - {"path"}
    if changed := _changes(saved["model"], now["model"], both):
        yield f"{folder} holds another model than actor_rollout_ref.model.path: {changed}"
    if changed := _changes(saved.get("lora") or {}, now["lora"] or {}):
        yield f"{folder} holds other trained weights than actor_rollout_ref.model asks for: {changed}"
    forms = [what["srpo"].get("teacher.lora_ema") for what in (saved, now)]
    if srpo.moves_teacher and now["lora"] and forms[0] != forms[1]:
        yield f"{folder} holds a teacher of the form srpo.teacher.lora_ema={forms[0]}; set it to that"
    if (changed := _changes(saved["data"], now["data"])) and not srpo.checkpoint.restart_data:
        yield (
            f"the training data are not those of {folder}, so its place in them means nothing: {changed}. Restore "
            "them, or set srpo.checkpoint.restart_data=true to read the new data from their beginning"
        )
    yield from in_flight.problems(saved, now, folder, restart_data=srpo.checkpoint.restart_data)
    if srpo.moves_teacher and not (folder / "teacher").is_dir():
        yield _no_teacher(folder)
    elif srpo.moves_teacher and (dtype := saved["srpo"].get("teacher.dtype", "float32")) != srpo.teacher.dtype:
        yield f"{folder} holds a teacher in {dtype}: set srpo.teacher.dtype={dtype}"


def _adapted(saved: dict[str, Any], now: dict[str, Any], srpo: SRPOConfig) -> Iterator[str]:
    if changed := _changes(saved["srpo"], now["srpo"]):
        yield f"settings changed since the checkpoint, and hold from here on: {changed}"
    if changed := _changes(saved.get("variants", {}), now["variants"]):
        yield f"variants changed since the checkpoint, and hold from here on: {changed}"
    if saved["lr"] != now["lr"]:
        yield f"the learning rate was {saved['lr']} and is {now['lr']} from here on"
    if saved["model"]["path"] != now["model"]["path"] and srpo.owns_teacher:
        yield (
            f"actor_rollout_ref.model.path was {saved['model']['path']}: initial weights, where the teacher or a "
            "reference uses them, are now those of the new path"
        )
    if srpo.checkpoint.restart_data and not reads_on(saved, now):
        yield "the training data or their order changed: read from their beginning (srpo.checkpoint.restart_data=true)"
    if changed := _changes(saved["versions"], now["versions"]):
        yield f"other versions than the checkpoint's, so the run is not exactly repeatable: {changed}"


def _changes(saved: dict[str, Any], now: dict[str, Any], keys: Any = None) -> str:
    """`topk 100 -> 20, ...`, empty if nothing changed."""
    names = sorted(keys if keys is not None else saved.keys() | now.keys())
    return ", ".join(
        f"{name} {saved.get(name)} -> {now.get(name)}" for name in names if saved.get(name) != now.get(name)
    )


def _no_teacher(folder: Path) -> str:
    return (
        f"{folder} has no teacher, so it cannot go on: resume with the config that wrote it, or set "
        "srpo.teacher.kind to live or frozen"
    )


def _step(folder: Path) -> int:
    return int(folder.name.rsplit("_", 1)[1])


def _model(path: str) -> dict[str, Any]:
    """The path, and the sizes that `config.json` gives if the model is a local folder."""
    described = model_config(path)
    return {"path": path, **({key: described.get(key) for key in _MODEL_KEYS} if described else {})}


def _file(path: str) -> dict[str, Any]:
    """Rows, size and a hash of the end of a local file (a parquet file's schema and statistics); else its address."""
    import pyarrow.parquet

    local = os.path.expanduser(path)
    if "://" in local or not os.path.isfile(local):
        return {"path": path}
    size = os.path.getsize(local)
    with open(local, "rb") as file:
        file.seek(max(0, size - (1 << 20)))
        digest = hashlib.sha256(file.read()).hexdigest()[:16]
    rows = pyarrow.parquet.read_metadata(local).num_rows if local.endswith(".parquet") else None
    return {"rows": rows, "bytes": size, "sha256_of_end": digest}
