"""A teacher with weights of its own: a third engine beside actor and reference."""

from __future__ import annotations

from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from verl.trainer.config import CheckpointConfig
from verl.workers.config import TrainingWorkerConfig
from verl.workers.engine_workers import TrainingWorker

from srpo_verl.config import SRPOConfig, TeacherConfig
from srpo_verl.training.worker.lora_teacher import AdapterTeacher
from srpo_verl.training.worker.lora_weights import has_adapter
from srpo_verl.training.worker.teacher_weights import TeacherWeights
from srpo_verl.verl_names.worker import set_fields, without_offload_policy

# verl's names of the dtypes.
_DTYPES = {"float32": "fp32", "bfloat16": "bf16"}
_WITHOUT_ADAPTER = {"lora_rank": 0, "lora_adapter_path": None}


class Teacher(TrainingWorker):
    """A forward-only engine; `weights` is what follows the actor's."""

    weights: TeacherWeights

    def student_pass(self, actor: TrainingWorker) -> AbstractContextManager[None]:
        """For a pass of the student in the middle of the teacher's."""
        return actor.engine.eval_mode()


def make_teacher(actor: TrainingWorker, srpo: SRPOConfig) -> Teacher | AdapterTeacher | None:
    """The teacher of the settings; None where it is the actor itself.

    Where the actor trains an adapter, a teacher that never moves is the actor's model without it (or with what
    `model.lora_adapter_path` brought), and one that moves is another adapter or, with `lora_ema: exact`, all weights.

    Raises:
        ValueError: the settings and the adapter do not go together.
    """
    if not srpo.owns_teacher:
        return None
    moves, config = srpo.moves_teacher, srpo.teacher
    whole = config.path is not None or (moves and config.lora_ema == "exact")
    if has_adapter(actor.engine.module) and not whole:
        return AdapterTeacher(actor, copied=moves or actor.config.model_config.lora_adapter_path is not None)
    teacher = build_teacher(actor, config)
    if not moves:
        teacher.weights.rest.clear()
    return teacher


def build_teacher(actor: TrainingWorker, config: TeacherConfig) -> Teacher:
    """A forward-only engine with the actor's model on the actor's mesh, in `config.dtype`, without gradients.

    It starts from the weights in `config.path`, a Hugging Face folder or name, else from the actor's current ones. An
    adapter of the actor's is merged into them.
    """
    path = config.path
    engine_config = deepcopy(actor.config.engine_config)
    set_fields(
        engine_config,
        forward_only=True,
        model_dtype=_DTYPES[config.dtype],
        use_dynamic_bsz=True,
        param_offload=config.param_offload,
    )
    teacher = Teacher(
        TrainingWorkerConfig(
            model_type=actor.config.model_type,
            model_config=_model_config(actor, path),
            engine_config=engine_config,
            optimizer_config=None,
            checkpoint_config=CheckpointConfig(save_contents=["model"], load_contents=["model"]),
            profiler_config=actor.config.profiler_config,
        )
    )
    if not config.offload_policy:
        without_offload_policy(teacher.engine)
    teacher.reset()
    for parameter in teacher.engine.module.parameters():
        parameter.requires_grad_(False)
    teacher.weights = TeacherWeights(teacher.engine.module)
    if path is None:
        teacher.weights.follow(actor.engine.module, torch.Tensor.copy_)
    return teacher


def _model_config(actor: TrainingWorker, path: str | None) -> Any:
    if path is None:
        return set_fields(deepcopy(actor.config.model_config), **_WITHOUT_ADAPTER)
    changed = {"path": path, "local_path": None, "hf_config_path": None, **_WITHOUT_ADAPTER}
    config = replace(actor.config.model_config, **changed)
    theirs, ours = actor.config.model_config.hf_config, config.hf_config
    for key in ("architectures", "vocab_size", "hidden_size", "num_hidden_layers"):
        its, actors = getattr(ours, key, None), getattr(theirs, key, None)
        if its != actors:
            raise ValueError(
                f"srpo.teacher.path={path} has {key}={its}, the actor {actors}: it must be of one architecture"
            )
    return config
