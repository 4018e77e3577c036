"""The mixin over verl's three trainers: whose methods run, once each, and what differs between the modes."""

from types import SimpleNamespace

import pytest
import torch
from transfer_queue import KVBatchMeta
from verl.experimental.separation.engine_workers import DetachActorWorker
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY, PPOTrainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from srpo_verl.config import settings
from srpo_verl.training.step import async_trainers
from srpo_verl.training.step.async_trainers import SRPOColocateAsyncTrainer, SRPOSeparateAsyncTrainer
from srpo_verl.training.step.group_buffer import GroupBuffer
from srpo_verl.training.step.trainer import SRPOMixin, SRPOTrainer
from srpo_verl.training.trainer_mode import trainer_modes, verl_mode
from srpo_verl.training.watch.driver_watch import STAGES
from srpo_verl.training.worker.worker import MOVE_TEACHER, STEP, SRPOWorker
from srpo_verl.verl_names.driver import undecorated
from tests.compose import compose

MODES = {
    "srpo": (SRPOTrainer, PPOTrainerSync, "sync"),
    "srpo_colocate_async": (SRPOColocateAsyncTrainer, PPOTrainerColocateAsync, "colocate_async"),
    "srpo_separate_async": (SRPOSeparateAsyncTrainer, PPOTrainerSeparateAsync, "separate_async"),
}
# What is allowed to verl's separate trainer: two mini-batches of 16 prompts, engines of their own, nccl.
SEPARATE = [
    "trainer.v1.separate_async.parameter_sync_step=2",
    "actor_rollout_ref.actor.ppo_mini_batch_size=16",
    "actor_rollout_ref.rollout.nnodes=1",
    "actor_rollout_ref.rollout.n_gpus_per_node=1",
    "actor_rollout_ref.rollout.checkpoint_engine.backend=nccl",
]


def made(mode):
    """A trainer as verl's constructors leave it; nothing of a cluster is there yet. It has its folder."""
    trainer = MODES[mode][0](compose("srpo", [f"trainer.v1.trainer_mode={mode}", *SEPARATE]))
    trainer.lease = SimpleNamespace(check=lambda: None, note=lambda **said: None)
    return trainer


@pytest.mark.parametrize("mode", MODES)
def test_ours_stands_before_verls_own_and_copies_nothing_of_it(mode):
    ours, verls, name = MODES[mode]
    assert TRAINER_REGISTRY[mode] is ours
    assert mode in trainer_modes()
    order = ours.__mro__
    assert order.index(SRPOMixin) < order.index(verls) < order.index(PPOTrainer)
    assert verl_mode(compose("srpo", [f"trainer.v1.trainer_mode={mode}"])) == name
    # What verl's modes differ in is verl's.
    for method in ("on_sample_end", "on_init_end", "get_llm_client"):
        defined = getattr(ours, method)
        assert getattr(defined, "__wrapped__", defined) is getattr(verls, method)
    assert all(hasattr(getattr(ours, method), "__wrapped__") for method in STAGES), "each stage is watched"


@pytest.mark.parametrize("mode", MODES)
def test_verl_decides_by_its_own_name_and_the_buffer_keeps_groups_with_failures(mode):
    trainer = made(mode)
    assert trainer.trainer_mode == MODES[mode][2]
    assert trainer.asynchronous == (mode != "srpo")
    assert trainer.parameter_sync_step == (2 if mode == "srpo_separate_async" else 1)
    assert type(trainer.replay_buffer) is (ReplayBuffer if mode == "srpo" else GroupBuffer)
    assert trainer.replay_buffer.poll_interval == trainer.srpo.poll_interval


@pytest.mark.parametrize("mode", MODES)
def test_our_worker_is_started_and_keeps_pi_old_where_verl_asks_for_it(mode):
    trainer = made(mode)
    trainer._init_resource_pool_mgr()
    worker = undecorated(trainer.role_worker_mapping[Role.ActorRollout])
    assert issubclass(worker, SRPOWorker)
    assert issubclass(worker, DetachActorWorker) == (mode == "srpo_separate_async")


def test_a_subclass_of_each_may_bring_its_own_worker():
    class Worker(SRPOWorker):
        pass

    class Mine(SRPOColocateAsyncTrainer):
        worker_class = Worker

    trainer = Mine(compose("srpo", ["trainer.v1.trainer_mode=srpo_colocate_async"]))
    trainer._init_resource_pool_mgr()
    assert issubclass(undecorated(trainer.role_worker_mapping[Role.ActorRollout]), Worker)


class Workers:
    """Notes what is asked of the ranks, in order."""

    def __init__(self):
        self.asked = []

    def save_model_to_cpu(self, number):
        self.asked.append(f"keep {number}")

    def restore_model_from_cpu(self, number):
        self.asked.append(f"take {number}")

    def clear_cpu_model(self, number):
        self.asked.append(f"forget {number}")


@pytest.fixture
def separate(monkeypatch):
    """A separate trainer at step 3, whose calls to verl's base class are noted."""
    trainer = made("srpo_separate_async")
    trainer.actor_rollout_wg, trainer.global_steps = Workers(), 3
    trainer.this_step = SimpleNamespace(plan=SimpleNamespace(asked=torch.tensor([True, False])), prompts={})
    asked = trainer.actor_rollout_wg.asked

    def compute(self, batch, metrics):
        asked.append(("old log-probs", batch.extra_info["srpo_collect_topk"]))
        return batch

    def update(self, batch, metrics):
        asked.append(("update", batch.extra_info[MOVE_TEACHER], batch.extra_info[STEP]))
        return batch

    monkeypatch.setattr(PPOTrainer, "_compute_old_log_prob", compute)
    monkeypatch.setattr(PPOTrainer, "_update_actor", update)
    monkeypatch.setattr("srpo_verl.training.step.trainer.put_fields", lambda batch, fields: batch)
    return trainer


def test_ids_and_old_log_probs_come_from_the_weights_before_the_batch_and_the_teacher_moves_once(separate):
    for number in range(2):
        separate.local_trigger_step = number
        batch = KVBatchMeta(partition_id="train", keys=["a_0_0", "a_1_0"], tags=[{}, {}])
        separate._compute_old_log_prob(batch, {})
        separate._update_actor(batch, {})
    assert separate.actor_rollout_wg.asked == [
        *("keep 0", ("old log-probs", True), ("update", False, 3)),
        *("keep 1", "take 0", ("old log-probs", True), "take 1", "forget 1", ("update", True, 3)),
    ]


def test_in_one_piece_the_teacher_moves_with_every_update(monkeypatch):
    for mode in ("srpo", "srpo_colocate_async"):
        trainer, seen = made(mode), []
        trainer.global_steps, trainer.this_step = 1, SimpleNamespace(prompts={})
        monkeypatch.setattr(PPOTrainer, "_update_actor", lambda self, batch, metrics, to=seen: to.append(batch))
        trainer._update_actor(KVBatchMeta(partition_id="train", keys=["a_0_0"], tags=[{}]), {})
        assert seen[0].extra_info[MOVE_TEACHER] is True


def test_counts_are_those_of_the_whole_batch_and_means_are_means(monkeypatch):
    trainer = made("srpo_separate_async")
    trainer.replay_buffer = None
    parts = iter(
        [
            {"srpo/routed_tokens": 30.0, "srpo/bad_score/missing": 1.0, "srpo/accuracy": 0.25, "srpo/weight/max": 2.0},
            {"srpo/routed_tokens": 10.0, "srpo/bad_score/missing": 0.0, "srpo/accuracy": 0.75, "srpo/weight/max": 3.0},
        ]
    )

    def once(self, metrics, timing_raw, size):
        metrics.update(next(parts))
        return KVBatchMeta(partition_id="train", keys=[f"{self.local_trigger_step}_{size}_0"], tags=[{}])

    monkeypatch.setattr(PPOTrainer, "_step_once", once)
    monkeypatch.setattr(SRPOSeparateAsyncTrainer, "prepare_step", lambda self: {})
    metrics = {}
    assert trainer.step(metrics, {}).keys == ["0_16_0", "1_16_0"]
    assert metrics == {
        "srpo/routed_tokens": 40.0,
        "srpo/bad_score/missing": 1.0,
        "srpo/accuracy": 0.5,
        "srpo/weight/max": 3.0,
    }


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "srpo"])
def test_staleness_is_counted_from_the_weights_that_are_updated(mode, monkeypatch):
    trainer, seen = made(mode), {}
    trainer.global_steps = 7
    monkeypatch.setattr(SRPOMixin, "_route", lambda self, batch, metrics: setattr(self, "this_step", batch))

    def note(plan, tags, *, version):
        seen.update(plan=plan, tags=tags, version=version)
        return {"srpo/staleness/interrupted": 0.5}

    monkeypatch.setattr(async_trainers, "staleness_metrics", note)
    metrics = {}
    trainer._route(SimpleNamespace(plan="plan", tags="tags"), metrics)
    assert (seen, metrics) == ({"plan": "plan", "tags": "tags", "version": 6}, {"srpo/staleness/interrupted": 0.5})


def test_settings_are_read_before_verls_constructor_asks_for_them():
    trainer = made("srpo_separate_async")
    assert trainer.srpo == settings(trainer.config.srpo)
