"""verl's actor-rollout-reference worker, with a teacher and SRPO's loss. Nothing of verl's worker is copied.

Additions to the remote calls: `compute_log_prob` also returns the student's top-K ids of routed rows,
`compute_teacher_targets`, `compute_shown_log_probs` and `compute_loss_divergence` are new, and `update_actor` ends with
the teacher's step. A teacher that moves is saved and restored with the checkpoint, in the folder `teacher` beside
`actor`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from tensordict import TensorDict
from verl.single_controller.base.decorator import Dispatch, make_nd_compute_dataproto_dispatch_fn, register
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import ActorRolloutRefWorker

from srpo_verl.config import settings
from srpo_verl.core import choose_kernels
from srpo_verl.training.fields import (
    LOSS_DIVERGENCE,
    ROUTED,
    SHOWN,
    SHOWN_LOG_PROBS,
    TEACHER_LOG_PROBS,
    TEACHER_PROMPTS,
    TEACHER_SAMPLED,
    TOKEN_WEIGHTS,
    TOPK_IDS,
    from_lengths,
    lengths_of,
    require,
)
from srpo_verl.training.rollout.weight_socket import name_socket
from srpo_verl.training.watch.rank_failure import failure_kept
from srpo_verl.training.worker.branch_gradients import branch_gradient_norms
from srpo_verl.training.worker.collectors import KeepLogits, LogProbs, LossDivergence, StudentTopK, TeacherTargets
from srpo_verl.training.worker.fused_head import FusedHead
from srpo_verl.training.worker.logits_hook import leave_all_to_hook
from srpo_verl.training.worker.lora_teacher import AdapterTeacher
from srpo_verl.training.worker.objective import ANY_ROUTED, SRPOObjective
from srpo_verl.training.worker.sequence_parallel import of_answering_rank
from srpo_verl.training.worker.teacher import Teacher, make_teacher
from srpo_verl.variants import VariantError
from srpo_verl.verl_names.leftovers import remove_leftovers
from srpo_verl.verl_names.worker import (
    ONLY_LOGITS,
    WANTS_LOGITS,
    loss_function,
    policy_config,
    sequence_parallel_group,
)

# What the driver puts on a batch.
COLLECT_TOPK = "srpo_collect_topk"
MEASURE_BRANCHES = "srpo_measure_branches"
STEP = "srpo_step"
MOVE_TEACHER = "srpo_move_teacher"


class SRPOWorker(ActorRolloutRefWorker):
    """verl's `ActorRolloutRefWorker`; its config subtree carries `srpo`. Subclasses may bring their own objective."""

    objective_class: type[SRPOObjective] = SRPOObjective
    teacher: Teacher | AdapterTeacher | None = None
    # The actor was updated since the teacher last moved.
    updated: bool = False
    # Output layers of actor, reference and teacher that are asked instead of building logits.
    fused: Sequence[FusedHead] = ()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self):
        super().init_model()
        self.srpo = settings(self.config.srpo)
        chosen = choose_kernels(self.srpo.kernels)
        if self.rank == 0:
            print(f"srpo: note: passes over logits: {chosen}")
        name_socket(self.rollout, self.config.rollout.name)
        remove_leftovers()  # on every node, here for the first time
        if self.actor is None or not self.srpo.distils:
            return
        if self.srpo.logit_loss:
            self.objective = self.objective_class(policy_config(self.actor), self.srpo)
            self.actor.set_loss_fn(self.objective)
        self.teacher = make_teacher(self.actor, self.srpo)
        if self.srpo.fused_linear:
            # A teacher that is the actor's own model has its output layer.
            own = self.teacher if isinstance(self.teacher, Teacher) else None
            self.fused = [FusedHead(worker.engine) for worker in (self.actor, self.ref, own) if worker]
        self.set_dispatch_collect(mesh_name="teacher", **(self.teacher or self.actor).get_dispatch_collect())

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    @failure_kept
    def compute_log_prob(self, data: TensorDict) -> TensorDict:
        collect = tu.pop(data, key=COLLECT_TOPK, default=False)
        if not (collect or self.srpo.own_log_probs):
            return super().compute_log_prob(data)
        tu.assign_non_tensor(data, **{"compute_loss": True, WANTS_LOGITS: True})
        if self.srpo.own_log_probs:
            leave_all_to_hook(data)
        with loss_function(self.actor, (StudentTopK if collect else LogProbs)(self.srpo)):
            return super().compute_log_prob(data)

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="ref"))
    @failure_kept
    def compute_ref_log_prob(self, data: TensorDict) -> TensorDict:
        if not self.srpo.own_log_probs:
            return super().compute_ref_log_prob(data)
        tu.assign_non_tensor(data, compute_loss=True)
        leave_all_to_hook(data)
        with loss_function(self.ref, LogProbs(self.srpo)):
            return super().compute_ref_log_prob(data)

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="teacher"))
    @failure_kept
    def compute_teacher_targets(self, data: TensorDict) -> TensorDict:
        """The teacher on rows with fields ROUTED, TEACHER_PROMPTS, `responses` and (if the ids are known) TOPK_IDS.

        A row that is not routed is a filler that evens out the ranks: its response is left out.
        """
        output = self._ask_teacher(self._teacher_batch(data, ROUTED))
        return output.cpu() if output is not None else None

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="teacher"))
    @failure_kept
    def compute_shown_log_probs(self, data: TensorDict) -> TensorDict:
        """The teacher's log-probs of the responses themselves, for rows with SHOWN, TEACHER_PROMPTS and `responses`."""
        output = self._ask_teacher(self._teacher_batch(data, SHOWN), sampled_only=True)
        if output is None:
            return None
        return tu.get_tensordict({SHOWN_LOG_PROBS: output[TEACHER_SAMPLED].cpu()}, {})

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    @failure_kept
    def compute_loss_divergence(self, data: TensorDict) -> TensorDict | None:
        """The loss's divergence of every valid token that the teacher was asked about, whatever it will weigh.

        One forward pass of the actor as it is, over rows with verl's fields, TOPK_IDS and TEACHER_LOG_PROBS.
        """
        require(data, (TOPK_IDS, TEACHER_LOG_PROBS, "response_mask"))
        lengths, mask = lengths_of(data[TOPK_IDS]), data["response_mask"]
        asked = torch.repeat_interleave(lengths > 0, lengths_of(mask))
        data[TOKEN_WEIGHTS] = from_lengths(mask.values()[asked].float(), lengths)
        tu.assign_non_tensor(data, **{"compute_loss": True, "calculate_entropy": False, WANTS_LOGITS: True})
        if self.srpo.own_log_probs:
            leave_all_to_hook(data)
        with loss_function(self.actor, LossDivergence(self.objective)):
            output = self.actor.infer_batch(data)
        return None if output is None else tu.get_tensordict({LOSS_DIVERGENCE: output[LOSS_DIVERGENCE].cpu()}, {})

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    @failure_kept
    def update_actor(self, data: TensorDict) -> TensorDict | None:
        any_routed, step = tu.get(data, ANY_ROUTED, False), tu.pop(data, key=STEP, default=0)
        measure, move = tu.pop(data, key=MEASURE_BRANCHES, default=False), tu.pop(data, key=MOVE_TEACHER, default=True)
        tu.assign_non_tensor(data, **{WANTS_LOGITS: any_routed})
        if self.srpo.own_log_probs:
            leave_all_to_hook(data)
        norms = branch_gradient_norms(self.actor, self.objective, data) if any_routed and measure else {}
        output = super().update_actor(data)
        # verl leaves the weights alone where the gradient is not finite. The norm is that of all ranks.
        grad_norms = tu.get(output, "metrics")["grad_norm"] if output is not None else []
        grad_norms = of_answering_rank(grad_norms, sequence_parallel_group(self.actor))
        skipped = [not math.isfinite(norm) for norm in grad_norms]
        extra = {**norms, "srpo/skipped_updates": float(sum(skipped))}
        self.updated = self.updated or not all(skipped)
        if self.teacher is not None and move:
            extra["srpo/teacher_distance"] = self._step_teacher(step, updated=self.updated)
            self.updated = False
        if output is not None:
            tu.assign_non_tensor(output, metrics={**tu.get(output, "metrics"), **extra})
        return output

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def save_checkpoint(self, local_path, hdfs_path=None, global_step=0, max_ckpt_to_keep=None):
        # verl would remove old checkpoints before the new one is whole; the trainer does it after.
        super().save_checkpoint(local_path, hdfs_path, global_step, None)
        if teacher := self._moving_teacher():
            remote = _beside(hdfs_path) if hdfs_path else None
            teacher.save_checkpoint(_beside(local_path), remote, global_step, None)
            teacher.weights.save(_beside(local_path))

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def load_checkpoint(self, local_path, hdfs_path=None, del_local_after_load=False):
        super().load_checkpoint(local_path, hdfs_path, del_local_after_load)
        teacher = self._moving_teacher()
        if teacher is None:
            return
        folder = _beside(local_path)
        if not os.path.isdir(folder):
            raise FileNotFoundError(
                f"the checkpoint has no teacher ({folder} is missing), so it cannot go on. Resume with the config "
                "that wrote it, or set srpo.teacher.kind to live or frozen."
            )
        teacher.load_checkpoint(folder, _beside(hdfs_path) if hdfs_path else None, del_local_after_load)
        teacher.weights.load(folder)

    def _moving_teacher(self) -> Teacher | AdapterTeacher | None:
        """The teacher, if its weights are state of the run: frozen ones are the initial model's."""
        return self.teacher if self.srpo.moves_teacher else None

    def _step_teacher(self, step: int, *, updated: bool) -> float:
        """Move the teacher if the actor was updated; the distance between the two. Collective."""
        assert self.teacher is not None
        variant, weights, module = self.srpo.variant("teacher"), self.teacher.weights, self.actor.engine.module
        if updated and variant.function is not None:
            found = variant.named(weights.follow, module, lambda own, actor: variant(own, actor, step, self.srpo))
        else:
            found = weights.follow(module, None)
        if updated and not math.isfinite(found):
            raise VariantError(f"{variant} left the teacher with weights that are not finite, in step {step}")
        return found

    def _ask_teacher(self, batch: TensorDict, *, sampled_only: bool = False) -> TensorDict | None:
        """One forward pass; None on a rank that does not collect."""
        teacher = self.teacher or self.actor
        student_forward = self._student_logits if self.srpo.variant("teacher").mix_logits else None
        with loss_function(teacher, TeacherTargets(self.srpo, student_forward, sampled_only=sampled_only)):
            return teacher.infer_batch(batch)

    def _teacher_batch(self, data: TensorDict, asked: str) -> TensorDict:
        """Teacher prompts and responses as a batch; `asked` names the flag of the rows that are no filler."""
        require(data, (asked, TEACHER_PROMPTS, "responses"))
        kept = data[asked].values().bool().tolist()
        prompts = data[TEACHER_PROMPTS].unbind()
        responses = [row if keep else row[:0] for row, keep in zip(data["responses"].unbind(), kept, strict=True)]
        tensors = {TOPK_IDS: data[TOPK_IDS]} if TOPK_IDS in data else {}
        lengths = torch.tensor([p.numel() + r.numel() for p, r in zip(prompts, responses, strict=True)])
        joined = [part for pair in zip(prompts, responses, strict=True) for part in pair]
        flat_responses = torch.cat(list(responses))
        response_lengths = torch.tensor([r.numel() for r in responses])
        tensors |= {
            "input_ids": from_lengths(torch.cat(joined), lengths),
            "position_ids": from_lengths(torch.cat([torch.arange(n) for n in lengths.tolist()]), lengths),
            "prompts": data[TEACHER_PROMPTS],
            "responses": from_lengths(flat_responses, response_lengths),
            "loss_mask": from_lengths(torch.ones_like(flat_responses), response_lengths),
        }
        options = {
            "temperature": tu.get(data, "temperature"),
            "max_token_len_per_gpu": tu.get(data, "max_token_len_per_gpu"),
            "use_dynamic_bsz": True,
            "calculate_entropy": False,
            "compute_loss": True,
            WANTS_LOGITS: True,
            ONLY_LOGITS: True,
        }
        return tu.get_tensordict(tensor_dict=tensors, non_tensor_dict=options)

    def _student_logits(self, micro_batch: TensorDict) -> torch.Tensor:
        keep = KeepLogits()
        # A teacher that is the actor itself is in the engine's pass already.
        with self.teacher.student_pass(self.actor) if self.teacher else nullcontext():
            self.actor.engine.forward_step(micro_batch, loss_function=keep, forward_only=True)
        return keep.logits


def _beside(actor_path: str) -> str:
    return os.path.join(os.path.dirname(actor_path.rstrip("/")), "teacher")
