"""Saving, failing, stopping and going on, with real files and a stand-in for the workers."""

import dataclasses
import functools
import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from srpo_verl.base.lease import LeaseLostError, take
from srpo_verl.base.lease_files import StopRequest, ask_to_stop, claim
from srpo_verl.config import settings
from srpo_verl.training.durable import checkpoint_store as store
from srpo_verl.training.durable import in_flight
from srpo_verl.training.durable.checkpoint_store import CheckpointError
from srpo_verl.training.durable.durable_trainer import DurableTrainer
from srpo_verl.training.durable.guards import Guards, TrainingStoppedError
from srpo_verl.training.durable.run_lease import StopRequests
from srpo_verl.training.step import async_trainers  # noqa: F401  (registers the modes)
from tests.compose import compose
from tests.training import tiny_model

WEIGHTS = 300_000


class Trainer(DurableTrainer, PPOTrainerSync):
    """Over verl's synchronous trainer."""


class Workers:
    """Writes one file, like a rank; `fails` is raised in the middle of it."""

    fails: Exception | None = None

    def save_checkpoint(self, local_path, hdfs_path, global_step, max_ckpt_to_keep):
        assert max_ckpt_to_keep is None, "verl would prune before the new checkpoint is whole"
        folder = Path(local_path)
        folder.mkdir(parents=True)
        with open(folder / "model.pt", "wb") as file:
            file.write(bytes(WEIGHTS // 2))
            if self.fails:
                raise self.fails
            file.write(bytes(WEIGHTS // 2))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tiny_model.build(folder / "model")
    pd.DataFrame({"prompt": ["?"] * 40}).to_parquet(folder / "data.parquet")
    return folder


@pytest.fixture
def make(base, monkeypatch):
    """`make(root, *overrides)`: a trainer as after verl's set-up, at step 0."""

    def build(root: Path, *overrides: str) -> DurableTrainer:
        trainer = object.__new__(Trainer)
        trainer.trainer_mode = "sync"
        trainer.config = compose(
            "srpo",
            [
                "platform=cpu",
                f"data.train_files={base}/data.parquet",
                f"actor_rollout_ref.model.path={base}/model",
                f"trainer.default_local_dir={root}",
                "trainer.save_freq=1",
                *overrides,
            ],
        )
        trainer.srpo = settings(trainer.config.srpo)
        trainer.guards, trainer.run_id = Guards(trainer.srpo), "run"
        trainer.last_saved, trainer.failed_saves, trainer._resumed_state = None, 0, None
        trainer.actor_rollout_wg, trainer.use_critic = Workers(), False
        trainer.train_dataloader = SimpleNamespace(state_dict=lambda: {"step": trainer.global_steps})
        trainer.checkpoint_callback = SimpleNamespace(on_save=lambda **_: None)
        trainer.logger = SimpleNamespace(log=lambda **_: None)
        trainer.total_training_steps = 100
        trainer.lease, trainer._known, trainer.states = take(root, token="this test"), {}, {}
        trainer.requests = StopRequests(trainer.lease, pytest.fail)
        trainer.requests.training = True
        return trainer

    monkeypatch.setattr(PPOTrainerSync, "_compute_metrics", lambda *args, **kwargs: None)
    return build


def step(trainer: DurableTrainer, number: int, *, save: bool = True, **metrics: float) -> dict:
    trainer.global_steps = number
    if save:
        trainer._save_checkpoint()
    found = {key.replace("__", "/"): value for key, value in metrics.items()}
    trainer._compute_metrics(None, found, {}, global_steps=number, epoch=0)
    return found


def steps(root: Path) -> list[int]:
    return [checkpoint.step for checkpoint in store.complete(root)]


def test_best_is_kept_and_old_ones_go(make, tmp_path):
    trainer = make(tmp_path)
    for number, accuracy in enumerate((0.2, 0.9, 0.3, 0.4, 0.5), 1):
        step(trainer, number, **{"val-core/x/acc/mean@2": accuracy})
    assert steps(tmp_path) == [2, 4, 5]
    assert store.read_best(tmp_path)["step"] == 2
    unkept = make(tmp_path / "unkept", "srpo.checkpoint.keep_best=false", "trainer.max_actor_ckpt_to_keep=1")
    for number, accuracy in enumerate((0.9, 0.2), 1):
        step(unkept, number, **{"val-core/x/acc/mean@2": accuracy})
    assert steps(tmp_path / "unkept") == [2]


def test_the_marker_holds_the_state_at_the_end_of_the_step(make, tmp_path):
    trainer = make(tmp_path)
    trainer.global_steps = 1
    trainer._save_checkpoint()
    torch.rand(3)  # as the validation's data loader does
    trainer._compute_metrics(None, {"actor/grad_norm": float("nan"), "srpo/skipped_updates": 2.0}, {}, 1, 0)
    expected = torch.rand(3)
    other = make(tmp_path)
    marker = store.inspect(tmp_path / "global_step_1").marker
    other._resumed_state = marker["random_state"]
    other.on_train_begin()
    assert torch.equal(torch.rand(3), expected)
    assert marker["guards"]["skipped"] == 2
    assert marker["guards"]["counts"]["nonfinite"] == 1


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed")])
def test_a_save_that_fails_leaves_the_old_one_and_training_goes_on(make, tmp_path, caplog, error):
    trainer = make(tmp_path)
    step(trainer, 1)
    trainer.actor_rollout_wg.fails = error
    assert step(trainer, 2)["srpo/checkpoint/failed_saves"] == 1
    assert steps(tmp_path) == [1]
    assert not (tmp_path / "global_step_2").exists()
    assert "the checkpoint of step 2 could not be saved" in caplog.text
    assert "the last complete one is" in caplog.text
    trainer.actor_rollout_wg.fails = None
    assert step(trainer, 3)["srpo/checkpoint/failed_saves"] == 0
    assert steps(tmp_path) == [1, 3]


def test_failures_in_a_row_the_last_step_and_several_ranks_stop_the_run(make, tmp_path):
    trainer = make(tmp_path)
    trainer.actor_rollout_wg.fails = OSError(28, "No space left on device")
    step(trainer, 1)
    step(trainer, 2)
    with pytest.raises(CheckpointError, match="failure 3 of 3 in a row"):
        step(trainer, 3)
    last = make(tmp_path)
    last.actor_rollout_wg.fails, last.total_training_steps = trainer.actor_rollout_wg.fails, 4
    with pytest.raises(CheckpointError, match="the run's last"):
        step(last, 4)
    ranks = make(tmp_path, "trainer.n_gpus_per_node=2")
    ranks.actor_rollout_wg.fails = trainer.actor_rollout_wg.fails
    with pytest.raises(CheckpointError, match="other ranks wait"):
        step(ranks, 1)
    assert steps(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_a_disk_that_is_really_full(make, tmp_path):
    """A file system of 1 MB: room for one checkpoint and a half-written one, not for two."""
    root = tmp_path / "disk"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", root], check=True)
    try:
        (root / "other").write_bytes(bytes(500_000))
        trainer = make(root)
        step(trainer, 1)
        # Known before: nothing is even begun.
        step(trainer, 2)
        assert sorted(path.name for path in root.iterdir() if path.is_dir()) == ["global_step_1", "srpo_lease"]
        # Not known before (no size to compare with): the write itself fails, and what it left is removed.
        trainer.last_saved = None
        step(trainer, 3)
        assert sorted(path.name for path in root.iterdir() if path.is_dir()) == ["global_step_1", "srpo_lease"]
        assert trainer.failed_saves == 2
        (root / "other").unlink()
        step(trainer, 4)
        assert steps(root) == [1, 4]
    finally:
        subprocess.run(["umount", root], check=True)


def test_a_guard_saves_and_stops_with_one_sentence(make, tmp_path):
    trainer = make(tmp_path, "srpo.guards.unmixed=2")
    sick = {"srpo/groups/mixed": 0.0, "srpo/routed_share": 0.0}
    step(trainer, 1, **{"val-core/x/acc/mean@2": 0.75}, **sick)
    with pytest.raises(TrainingStoppedError) as stopped:
        step(trainer, 2, save=False, **sick)
    assert "no group had both" in str(stopped.value)
    assert "The best checkpoint is global_step_1 (accuracy 0.750)." in str(stopped.value)
    assert steps(tmp_path) == [1, 2]
    # The counts are in the checkpoint: a resumed run does not begin to count anew.
    assert json.loads((tmp_path / "global_step_2" / store.MARKER).read_text())["guards"]["counts"]["unmixed"] == 2


def test_a_guard_that_distrusts_the_weights_does_not_save(make, tmp_path):
    trainer = make(tmp_path, "srpo.guards.nonfinite=1")
    with pytest.raises(TrainingStoppedError, match="NaN or infinite"):
        step(trainer, 1, save=False, **{"actor/grad_norm": float("inf")})
    assert steps(tmp_path) == []


def test_a_guard_speaks_even_if_the_save_fails(make, tmp_path):
    trainer = make(tmp_path, "srpo.guards.unmixed=1", "srpo.checkpoint.max_failures=1")
    trainer.actor_rollout_wg.fails = OSError(28, "No space left on device")
    with pytest.raises(TrainingStoppedError, match=r"no group had both.*No space left on device"):
        step(trainer, 1, save=False, **{"srpo/groups/mixed": 0.0, "srpo/routed_share": 0.0})


@pytest.mark.parametrize("function", ["rewrite", "note_validation", "prune"])
def test_what_fails_beside_a_complete_checkpoint_ends_nothing(make, tmp_path, monkeypatch, caplog, function):
    def refuse(*args, **kwargs):
        raise OSError(16, "Device or resource busy")

    trainer = make(tmp_path)
    monkeypatch.setattr(store, function, refuse)
    step(trainer, 1, **{"val-core/x/acc/mean@2": 0.5})
    assert steps(tmp_path) == [1]
    assert "Device or resource busy" in caplog.text


@pytest.fixture
def queue(monkeypatch):
    """TransferQueue's part of a checkpoint, and what is cleared after a load."""
    cleared = []

    def save_checkpoint(folder, metadata):
        Path(folder).mkdir()
        (Path(folder) / "metadata.json").write_text(json.dumps(metadata))

    def kv_list(partition_id):
        return {partition_id: {"waiting": {"is_prompt": True}, "waiting_0_0": {}, "trained_0_0": {}}}

    found = SimpleNamespace(save_checkpoint=save_checkpoint, kv_list=kv_list, cleared=cleared)
    found.kv_clear = lambda keys, partition_id: cleared.extend(keys)
    monkeypatch.setattr(in_flight, "tq", found)
    return found


def test_what_is_in_flight_is_part_of_a_checkpoint_of_an_asynchronous_run(make, tmp_path, queue):
    trainer = make(tmp_path, "trainer.v1.trainer_mode=srpo_colocate_async")
    trainer.trainer_mode = "colocate_async"
    step(trainer, 1)
    assert "transfer_queue/metadata.json" in store.inspect(tmp_path / "global_step_1").marker["files"]
    synchronous = make(tmp_path / "other")
    step(synchronous, 1)
    assert not (tmp_path / "other/global_step_1/transfer_queue").exists()


@pytest.mark.parametrize(
    ("change", "cleared", "prompts"),
    [
        ([], ["trained_0_0"], 1),
        (["data.seed=7", "srpo.checkpoint.restart_data=true"], ["trained_0_0", "waiting", "waiting_0_0"], 0),
    ],
)
def test_of_what_was_in_flight_comes_back_what_is_still_to_train_on(
    make, tmp_path, queue, monkeypatch, change, cleared, prompts
):
    mode = ["trainer.v1.trainer_mode=srpo_colocate_async", "srpo.teacher.kind=live"]
    first = make(tmp_path, *mode)
    first.trainer_mode = "colocate_async"
    step(first, 1)
    trainer = make(tmp_path, *mode, "trainer.resume_mode=auto", *change)
    trainer.trainer_mode = "colocate_async"
    # As verl leaves it, which has read the queue.
    monkeypatch.setattr(PPOTrainerSync, "_load_checkpoint", lambda self: setattr(self, "_restored_tq_prompt_count", 1))
    monkeypatch.setattr(Trainer, "_init_dataloader", lambda self: None)
    trainer._load_checkpoint()
    assert sorted(set(queue.cleared)) == cleared
    assert trainer._restored_tq_prompt_count == prompts


def test_a_request_to_end_saves_first_whatever_save_freq_says(make, tmp_path):
    trainer = make(tmp_path, "trainer.save_freq=-1")
    logged = []
    trainer.logger = SimpleNamespace(log=lambda data, step: logged.append(step))
    step(trainer, 1, save=False)
    ask_to_stop(tmp_path, trainer.lease.token, StopRequest("SIGTERM", 300))
    assert trainer.requests.look() is None
    with pytest.raises(TrainingStoppedError, match=r"SIGTERM: stopped after step 2\."):
        step(trainer, 2, save=False)
    assert (steps(tmp_path), logged) == ([2], [2])


def test_a_request_whose_time_is_up_ends_the_run_at_once(make, tmp_path):
    trainer = make(tmp_path)
    ask_to_stop(tmp_path, trainer.lease.token, StopRequest("SIGUSR1", -1))
    assert trainer.requests.look() == "SIGUSR1, and the step did not end within -1 s"
    trainer.requests.training = False
    assert trainer.requests.look() == "SIGUSR1, before anything was trained"


@pytest.mark.parametrize("moment", ["before", "while the ranks write", "before the step's end"])
def test_a_run_that_lost_its_folder_writes_and_removes_nothing_there(make, tmp_path, moment):
    trainer = make(tmp_path, "trainer.max_actor_ckpt_to_keep=1")
    step(trainer, 1)
    before = (tmp_path / "global_step_1" / store.MARKER).read_text()

    def lose(*args, **kwargs):
        record = trainer.lease.record
        claim(tmp_path, dataclasses.replace(record, token="other", generation=record.generation + 1))

    if moment == "while the ranks write":
        trainer.actor_rollout_wg.save_checkpoint = lose
    elif moment == "before":
        lose()
    trainer.global_steps = 2
    act = trainer._save_checkpoint
    if moment == "before the step's end":
        lose()
        act = functools.partial(trainer._compute_metrics, None, {}, {}, 2, 0)
    with pytest.raises(LeaseLostError, match="taken over by run other"):
        act()
    assert steps(tmp_path) == [1]
    assert (tmp_path / "global_step_1" / store.MARKER).read_text() == before


def test_the_marker_holds_the_steps_metrics_for_a_run_that_is_killed_before_it_logs_them(make, tmp_path):
    trainer = make(tmp_path)
    trainer.global_steps, trainer._known = 1, {"srpo/accuracy": 0.5, "a/tensor": torch.ones(2), "odd": float("nan")}
    trainer._save_checkpoint()
    assert trainer.last_saved.marker["metrics"] == {"training/global_step": 1.0, "srpo/accuracy": 0.5}
    trainer._compute_metrics(None, {"timing_s/step": 2.0}, {}, 1, 0)
    at_its_end = trainer.last_saved.marker["metrics"]
    assert (at_its_end["training/global_step"], at_its_end["timing_s/step"]) == (1.0, 2.0)
    assert "srpo/accuracy" not in at_its_end  # those of the step, not what was known of it before
