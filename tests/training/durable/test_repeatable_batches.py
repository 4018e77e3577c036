"""Prompts get names that say step and place, batches one order, rollouts a seed: on verl's own classes, without Ray."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.dataset.rl_dataset import collate_fn

from srpo_verl.config import settings
from srpo_verl.training.durable.durable_trainer import DurableTrainer
from srpo_verl.training.rollout.agent_loop import SRPOAgentLoopWorker


class Trainer(DurableTrainer, PPOTrainerSync):
    """Over verl's synchronous trainer."""


@pytest.fixture
def trainer():
    found = object.__new__(Trainer)
    found.config = OmegaConf.create({"data": {"train_batch_size": 4, "gen_batch_size": 2}})
    found._submitted, found.global_steps, found.train_dataloader_it = (0, 0), 7, None
    rows = [{"raw_prompt": [{"role": "user", "content": str(n)}], "index": n} for n in range(2)]
    found.train_dataloader = [collate_fn(rows)] * 20
    return found


def test_uids_name_step_and_place_over_several_fetches(trainer):
    batch = trainer._next_train_batch()
    expected = [f"0000007-0000{place}" for place in range(4)]
    assert list(batch["uid"]) == expected
    assert list(batch.chunk(2)[1]["uid"]) == expected[2:]
    assert list(trainer._fetch_one_gen_batch()["uid"]) == ["0000007-00004", "0000007-00005"]  # a refill
    trainer.global_steps = 8
    assert next(iter(trainer._fetch_one_gen_batch()["uid"])) == "0000008-00000"


def test_a_batch_is_put_in_order_before_verl_balances_it(trainer, monkeypatch):
    seen = []
    monkeypatch.setattr(PPOTrainer, "_balance_batch", lambda self, batch, metrics: seen.append(batch) or batch)
    keys = ["0000007-00001_0_0", "0000007-00000_10_0", "0000007-00000_2_0"]
    batch = KVBatchMeta(partition_id="train", keys=keys, tags=[{"seq_len": n} for n in range(3)])
    trainer._balance_batch(batch, {})
    assert seen[0].keys == ["0000007-00000_2_0", "0000007-00000_10_0", "0000007-00001_0_0"]
    assert [tag["seq_len"] for tag in seen[0].tags] == [2, 1, 0]


@pytest.fixture
def seeds(monkeypatch):
    """`seeds(seeded, validate, uid, index)`: the seeds that verl's loop is given for two samples of a prompt."""
    found = []

    async def loop(self, sampling_params, trajectory, **kwargs):
        found.append(sampling_params.get("seed"))

    monkeypatch.setattr(AgentLoopWorkerTQ.__ray_metadata__.modified_class, "_run_agent_loop", loop)

    def run(seeded: bool, *, validate: bool, uid: str, index: int = 0, step: int = 7) -> list[int | None]:
        worker = object.__new__(SRPOAgentLoopWorker)
        worker.srpo = settings({"seeded_rollouts": seeded})
        worker.tools = {}
        worker.config = SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=SimpleNamespace(seed=42)))
        row = {"uid": uid, "index": np.int64(index), "raw_prompt": [{"role": "user", "content": "?"}]}
        found.clear()
        for session in range(2):
            trajectory = {"step": step, "validate": validate}
            asyncio.run(worker._run_agent_loop({"temperature": 1.0}, trajectory, session_id=session, **row))
        return list(found)

    return run


def test_seeds_are_given_only_if_asked_for_and_repeat(seeds):
    assert seeds(False, validate=False, uid="a") == [None, None]
    first = seeds(True, validate=False, uid="a")
    assert len(set(first)) == 2
    assert seeds(True, validate=False, uid="a") == first
    assert not set(seeds(True, validate=False, uid="b")) & set(first)
    assert not set(seeds(True, validate=False, uid="a", step=8)) & set(first)


def test_validation_prompts_are_known_by_their_row_because_their_uids_are_random(seeds):
    first = seeds(True, validate=True, uid="random")
    assert seeds(True, validate=True, uid="other") == first
    assert not set(seeds(True, validate=True, uid="random", index=1)) & set(first)
