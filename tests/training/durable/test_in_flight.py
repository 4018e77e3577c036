"""Prompts in flight: what of TransferQueue a checkpoint brings back, and which runs can go on with it."""

from pathlib import Path

import pytest

from srpo_verl.training.durable import in_flight
from tests.compose import compose

LISTING = {
    "done": {"is_prompt": True, "status": "finished"},
    "done_0_0": {},
    "done_1_0": {},
    "half": {"is_prompt": True, "status": "running"},
    "half_1_0": {},
    # Of the batch that was trained on when the checkpoint was written: its prompts are gone.
    "0000004-00001_0_0": {},
    "0000004-00001_1_0": {},
}


class Queue:
    def __init__(self):
        self.items, self.saved = {"train": dict(LISTING), "val": {"other": {}}}, []

    def kv_list(self, partition_id=None):
        return {partition_id: dict(self.items[partition_id])}

    def kv_clear(self, keys, partition_id):
        for key in keys:
            del self.items[partition_id][key]

    def save_checkpoint(self, folder, metadata):
        self.saved.append((folder, metadata))


@pytest.fixture
def queue(monkeypatch):
    found = Queue()
    monkeypatch.setattr(in_flight, "tq", found)
    return found


def test_what_was_trained_on_does_not_come_back(queue):
    in_flight.forget_trained()
    assert sorted(queue.items["train"]) == ["done", "done_0_0", "done_1_0", "half", "half_1_0"]
    in_flight.forget_all()
    assert queue.items == {"train": {}, "val": {"other": {}}}


def test_it_is_written_where_verl_looks_for_it(queue):
    in_flight.save(Path("run/global_step_4"), 4)
    assert queue.saved == [("run/global_step_4/transfer_queue", {"global_steps": 4})]


@pytest.mark.parametrize(("mode", "units"), [("srpo", None), ("srpo_colocate_async", 1)])
def test_the_synchronous_trainer_keeps_nothing_in_flight(mode, units):
    import srpo_verl.training.step.async_trainers  # noqa: F401  (registers the modes)

    assert in_flight.storage_units(compose("srpo", ["platform=cpu", f"trainer.v1.trainer_mode={mode}"])) == units


@pytest.mark.parametrize(
    ("saved", "now", "says"),
    [
        ({}, {"in_flight": None}, None),  # a checkpoint from before there were modes
        ({"in_flight": 8}, {"in_flight": 8}, None),
        ({}, {"in_flight": 8}, "was written by the synchronous trainer"),
        ({"in_flight": 8}, {"in_flight": None}, "was written by an asynchronous trainer"),
        ({"in_flight": 8}, {"in_flight": 1}, "SimpleStorage.num_data_storage_units=8"),
    ],
)
def test_who_can_go_on_with_it(saved, now, says):
    found = list(in_flight.problems(saved, now, Path("global_step_4"), restart_data=False))
    assert [says in line for line in found] == ([True] if says else [])
    with_new_data = list(in_flight.problems(saved, now, Path("global_step_4"), restart_data=True))
    assert bool(with_new_data) == bool(says and "units" in says)
