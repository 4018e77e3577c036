"""Which groups the asynchronous modes take, drop and replace, on verl's own buffer with a queue in memory."""

import pytest
from verl.trainer.ppo.v1 import replay_buffer

from srpo_verl.training.step.group_buffer import GroupBuffer


class Queue:
    """Keys and tags of one partition; `prompt(uid, status, rollouts)` adds a group."""

    def __init__(self):
        self.items = {}

    def prompt(self, uid, status, rollouts, step=5):
        self.items[uid] = {"is_prompt": True, "status": status, "global_steps": step}
        self.items |= {f"{uid}_{session}_0": {"status": "success"} for session in range(rollouts)}

    def kv_list(self, partition_id=None):
        return {"train": {key: dict(tag) for key, tag in self.items.items()}}

    def kv_clear(self, keys, partition_id):
        for key in keys:
            self.items.pop(key, None)


@pytest.fixture
def queue(monkeypatch):
    found = Queue()
    monkeypatch.setattr(replay_buffer, "tq", found)
    return found


def buffer(refilled=(), **changes):
    options = {"max_off_policy_threshold": 8, "max_off_policy_strategy": "drop", **changes}
    return GroupBuffer(
        trainer_mode="colocate_async",
        trainer_config={},
        sampler_kwargs={},
        poll_interval=0.0,
        refill_fn=refilled,
        **options,
    )


def never(number):
    raise AssertionError(f"{number} groups were replaced")


def test_a_group_that_lost_rollouts_is_taken_with_the_others(queue):
    queue.prompt("a", "failure", 3)
    queue.prompt("b", "finished", 4)
    queue.prompt("c", "running", 2, step=3)
    batch, metrics = buffer(never).sample(6, "train", 2)
    assert sorted(batch.keys) == [*(f"a_{n}_0" for n in range(3)), *(f"b_{n}_0" for n in range(4))]
    assert metrics == {"srpo/staleness/in_flight_max": 3.0}
    # What is in flight stays, with the rollouts of it that have ended.
    assert sorted(queue.items) == sorted([*batch.keys, "c", "c_0_0", "c_1_0"])


def test_verls_own_would_throw_it_away(queue):
    """The reason for ours; where this fails, verl has come to it too."""
    queue.prompt("a", "failure", 3)
    theirs = replay_buffer.ReplayBufferAsync("colocate_async", {}, 8, "drop", {}, refill_fn=never)
    with pytest.raises(AssertionError, match="1 groups were replaced"):
        theirs.sample(6, "train", 1)


def test_of_a_group_nothing_is_left_of_there_is_nothing_to_train_on(queue):
    queue.prompt("a", "failure", 0)
    queue.prompt("b", "finished", 4)
    batch, _ = buffer(never).sample(6, "train", 2)
    assert {key[0] for key in batch.keys} == {"b"}
    queue.prompt("c", "failure", 0)
    with pytest.raises(RuntimeError, match="all rollouts of the 1 prompts of this batch failed"):
        buffer(never).sample(6, "train", 1)


def test_such_groups_are_replaced_if_that_is_asked_for(queue):
    queue.prompt("a", "failure", 0)
    queue.prompt("b", "failure", 1)
    asked = []

    def refill(number):
        asked.append(number)
        queue.prompt("c", "finished", 4)

    batch, metrics = buffer(refill, sync_refill_failed_groups=True).sample(6, "train", 2)
    assert asked == [1]
    assert {key[0] for key in batch.keys} == {"b", "c"}
    assert metrics["training/rollout_failure/evicted_samples"] == 1


def test_a_stale_group_is_dropped_whether_or_not_it_lost_rollouts(queue):
    """Step 12 is the eighth that a prompt of step 5 spans, step 13 the ninth."""
    asked = []

    def refill(number):
        asked.append(number)
        queue.prompt("d", "finished", 4, step=13)
        queue.prompt("e", "finished", 4, step=13)

    queue.prompt("a", "failure", 3)
    queue.prompt("b", "finished", 4)
    assert len(buffer(never).sample(12, "train", 2)[0].keys) == 7
    queue.prompt("a", "failure", 3)
    queue.prompt("b", "finished", 4)
    batch, metrics = buffer(refill).sample(13, "train", 2)
    assert asked == [2]
    assert {key[0] for key in batch.keys} == {"d", "e"}
    assert metrics["training/off_policy/evicted_samples"] == 2


def test_the_oldest_groups_come_first(queue):
    for uid, step in (("a", 6), ("b", 4), ("c", 5)):
        queue.prompt(uid, "failure" if uid == "b" else "finished", 1, step=step)
    batch, metrics = buffer(never).sample(6, "train", 2)
    assert {key[0] for key in batch.keys} == {"b", "c"}
    assert metrics == {"srpo/staleness/in_flight_max": 0.0}, "what waits for its turn has ended"
