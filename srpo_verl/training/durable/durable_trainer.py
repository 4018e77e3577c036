"""Checkpoints that are whole or absent, an exact resume, and guards, over any of verl's three trainers.

    update_actor -> save (files, marker, tracker, prune) -> validate -> metrics -> guards -> marker again

The marker is written at once, and once more when the step is over: validation uses the driver's random state, and the
guards see the step's metrics. A kill in between costs no weights.

Before anything is written, or removed, the lease of the folder is looked at: a run that lost it writes nothing more.
A request to end is heeded at the end of the step, with a checkpoint.
"""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import open_dict
from ray.exceptions import RayTaskError
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils import tensordict_utils as tu

from srpo_verl.base.lease import Lease
from srpo_verl.config import SRPOConfig
from srpo_verl.training.durable import checkpoint_store as store
from srpo_verl.training.durable import in_flight
from srpo_verl.training.durable.checkpoint_store import CheckpointError
from srpo_verl.training.durable.guards import Guards, TrainingStoppedError, validation_accuracy
from srpo_verl.training.durable.metrics_lines import numbers, settle
from srpo_verl.training.durable.random_state import get_random_state, set_random_state
from srpo_verl.training.durable.resume import identity, plan_resume, reads_on
from srpo_verl.training.durable.run_lease import StopRequests
from srpo_verl.training.durable.run_states import States, load_states, save_states
from srpo_verl.training.rollout_keys import batch_order, prompt_uid
from srpo_verl.training.trainer_mode import SYNC

logger = logging.getLogger(__name__)


class DurableTrainer(PPOTrainer):
    """A mixin: stands before one of verl's trainers among the bases.

    Needs `self.srpo` before its constructor runs, `self.lease` and `self.requests` before anything is saved.
    """

    srpo: SRPOConfig
    lease: Lease
    requests: StopRequests

    def __init__(self, config):
        super().__init__(config)
        self.guards = Guards(self.srpo)
        self.run_id = uuid.uuid4().hex[:12]
        self.last_saved: store.Checkpoint | None = None
        self.failed_saves = 0
        self._resumed_state: dict[str, Any] | None = None
        self.states: States = {}
        self._submitted = (0, 0)  # step, prompts of it so far
        self._known: dict[str, Any] = {}  # this step's metrics by now

    @property
    def asynchronous(self) -> bool:
        """Whether prompts stay in flight from one step to the next."""
        return self.trainer_mode != SYNC

    @property
    def _root(self) -> Path:
        return Path(self.config.trainer.default_local_dir).absolute()

    # ---- the same batches in the same order ------------------------------------------------------------------

    def _fetch_one_gen_batch(self):
        batch = super()._fetch_one_gen_batch()
        step, first = self._submitted
        first = first if step == self.global_steps else 0
        self._submitted = (self.global_steps, first + len(batch))
        names = [prompt_uid(self.global_steps, first + position) for position in range(len(batch))]
        tu.assign_non_tensor_stack(batch, "uid", names)
        return batch

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, *args: Any, **kwargs: Any) -> KVBatchMeta:
        batch.reorder(batch_order(batch.keys))
        self._known = metrics
        return super()._balance_batch(batch, metrics, *args, **kwargs)

    # ---- resume ----------------------------------------------------------------------------------------------

    def _load_checkpoint(self) -> None:
        plan = plan_resume(self.config, self.srpo)
        for note in plan.notes:
            logger.warning("srpo: %s", note)
        if plan.problems:
            raise CheckpointError("; ".join(plan.problems))
        with open_dict(self.config):
            self.config.trainer.resume_mode = "disable" if plan.folder is None else "resume_path"
            self.config.trainer.resume_from_path = str(plan.folder)
        super()._load_checkpoint()
        if self.asynchronous:
            in_flight.forget_trained()
        if plan.folder is not None:
            self.states = load_states(plan.folder, self.srpo)
        if plan.checkpoint is None:
            if plan.folder is None and plan.begins_anew:
                settle(self._root, None)
            return
        saved = plan.checkpoint.marker
        if not reads_on(saved["identity"], identity(self.config, self.srpo)):
            self._init_dataloader()
            if self.asynchronous:
                in_flight.forget_all()
                self._restored_tq_prompt_count = 0
        self.guards.load_state_dict(saved["guards"])
        self._resumed_state = saved["random_state"]
        if plan.checkpoint.folder.parent == self._root:
            self.run_id, self.last_saved = plan.checkpoint.run, plan.checkpoint
            if again := settle(self._root, plan.checkpoint.step, saved.get("metrics")):
                logger.warning("srpo: steps %s are trained again", ", ".join(map(str, sorted(set(again)))))

    def on_train_begin(self) -> None:
        super().on_train_begin()
        self.requests.training = True
        if self._resumed_state is not None:
            set_random_state(self._resumed_state)

    # ---- save ------------------------------------------------------------------------------------------------

    def _save_checkpoint(self) -> None:
        folder = store.step_folder(self._root, self.global_steps)
        self.lease.check()
        try:
            self._check_free_space()
            store.begin(folder, self.global_steps)
            self._write(folder)
            self.lease.check()
            self.last_saved = store.finish(folder, step=self.global_steps, run=self.run_id, **self._contents())
        except (OSError, RuntimeError, RayTaskError) as error:
            self._save_failed(folder, error)
            return
        self.failed_saves = 0
        trainer = self.config.trainer
        keep = 1 if trainer.get("remove_previous_ckpt_in_save") else trainer.max_actor_ckpt_to_keep
        self.lease.check()
        with _not_fatal("old checkpoints could not be removed"):
            for removed in store.prune(self._root, run=self.run_id, keep=keep):
                logger.info("srpo: removed %s", removed)
        self.checkpoint_callback.on_save(
            trainer=self, global_step=self.global_steps, checkpoint_dir=str(folder), async_save=False
        )

    def _write(self, folder: Path) -> None:
        """What verl's own method writes, without its tracker, which has to come after the marker."""
        self.actor_rollout_wg.save_checkpoint(str(folder / "actor"), None, self.global_steps, max_ckpt_to_keep=None)
        if self.use_critic:
            critic = str(folder / str(Role.Critic))
            self.critic_wg.save_checkpoint(critic, None, self.global_steps, max_ckpt_to_keep=None)
        torch.save(self.train_dataloader.state_dict(), folder / "data.pt")
        if self.asynchronous:
            in_flight.save(folder, self.global_steps)
        save_states(folder, self.states)

    def _contents(self) -> dict[str, Any]:
        return {
            "identity": identity(self.config, self.srpo),
            "guards": self.guards.state_dict(),
            "random_state": get_random_state(),
            "metrics": {"training/global_step": float(self.global_steps), **numbers(self._known)},
        }

    def _check_free_space(self) -> None:
        """Asked before any rank writes: a rank that fails alone leaves the others waiting for it."""
        if self.last_saved is None:
            return
        self._root.mkdir(parents=True, exist_ok=True)
        free, needed = shutil.disk_usage(self._root).free, self.last_saved.bytes
        if free < needed:
            raise _DiskFullError(
                f"{free / 1e9:.3f} GB are free below {self._root}, a checkpoint has {needed / 1e9:.3f} GB"
            )

    def _save_failed(self, folder: Path, error: Exception) -> None:
        """Say it and go on to the next save, or stop the run where going on is not safe."""
        began = not isinstance(error, _DiskFullError)
        if began and folder.exists():
            store.discard(folder)
        self.failed_saves += 1
        kept = f"the last complete one is {self.last_saved.folder}" if self.last_saved else "there is none before it"
        said = f"the checkpoint of step {self.global_steps} could not be saved ({_reason(error)}); {kept}"
        ranks = self.config.trainer.nnodes * self.config.trainer.n_gpus_per_node
        limit = self.srpo.checkpoint.max_failures
        if self.global_steps >= self.total_training_steps:
            raise CheckpointError(f"{said}. It was the run's last: free some space and resume") from error
        if began and ranks > 1:
            raise CheckpointError(f"{said}. The other ranks wait for the one that failed: resume") from error
        if self.failed_saves >= limit:
            raise CheckpointError(f"{said}. That was failure {limit} of {limit} in a row, so the run stops") from error
        logger.error("srpo: %s. Training goes on; failure %d of %d in a row", said, self.failed_saves, limit)

    # ---- the end of a step -----------------------------------------------------------------------------------

    def on_step_end(self) -> None:
        if self.requests.asked is not None and not self._is_saved():
            self._save_checkpoint()  # before the weights go to the rollout engine, which no step needs any more
        super().on_step_end()

    def _validate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if self.requests.training and self.requests.asked is not None:
            return {}
        return super()._validate(*args, **kwargs)

    def _is_saved(self) -> bool:
        return self.last_saved is not None and self.last_saved.step == self.global_steps

    def _compute_metrics(self, batch, metrics, timing_raw, global_steps, epoch):
        self.lease.check()
        super()._compute_metrics(batch, metrics, timing_raw, global_steps=global_steps, epoch=epoch)
        metrics["srpo/checkpoint/failed_saves"] = float(self.failed_saves)
        self._known = metrics
        saved = self.last_saved if self._is_saved() else None
        stop = self.guards.observe(metrics)
        if saved is not None:
            with _not_fatal(f"the end of step {saved.step} is missing in its checkpoint, which stays complete"):
                accuracy = validation_accuracy(metrics)
                if accuracy is not None and self.srpo.checkpoint.keep_best:
                    store.note_validation(saved, accuracy)
                self.last_saved = store.rewrite(saved, **self._contents())
        self.lease.check()
        self.lease.note(step=self.global_steps)
        if self.requests.asked is not None and self.global_steps < self.total_training_steps:
            sentence = f"{self.requests.asked.why}: stopped after step {self.global_steps}."
            self._stop(sentence, metrics, save=saved is None)
        if stop is not None:
            sound = stop.weights_are_sound and self.config.trainer.save_freq > 0
            self._stop(stop.sentence, metrics, save=saved is None and sound)

    def _stop(self, sentence: str, metrics: dict[str, Any], *, save: bool) -> None:
        self.logger.log(data=metrics, step=self.global_steps)
        kept = ""
        if save:
            try:
                self._save_checkpoint()
            except CheckpointError as error:
                kept = f" And {error}."
        if best := store.read_best(self._root):
            kept += f" The best checkpoint is global_step_{best['step']} (accuracy {best['accuracy']:.3f})."
        raise TrainingStoppedError(f"{sentence}{kept}")


class _DiskFullError(OSError):
    """Too little room, known before anything was written."""


@contextmanager
def _not_fatal(what: str) -> Iterator[None]:
    """A file system that refuses what is not needed to go on."""
    try:
        yield
    except OSError as error:
        logger.warning("srpo: %s: %s", what, error)


def _reason(error: Exception) -> str:
    """The cause's first line: Ray wraps a worker's exception into a page."""
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {str(cause).strip().splitlines()[-1] if str(cause).strip() else ''}"
