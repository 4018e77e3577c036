"""What a run may resume from, in words, from config and folders alone."""

import json
from pathlib import Path

import pandas as pd
import pytest

from srpo_verl.config import settings
from srpo_verl.training.durable import checkpoint_store as store
from srpo_verl.training.durable.resume import identity, plan_resume
from srpo_verl.training.step import async_trainers  # noqa: F401  (registers the modes)
from tests.compose import compose
from tests.training import tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with two models and two data sets."""
    folder = tmp_path_factory.mktemp("base")
    tiny_model.build(folder / "model")
    tiny_model.build(folder / "other")
    file = folder / "other" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "hidden_size": 64}))
    for name, rows in (("data", 40), ("more", 44)):
        pd.DataFrame({"prompt": [f"{name} {row}" for row in range(rows)]}).to_parquet(folder / f"{name}.parquet")
    return folder


class Case:
    def __init__(self, base: Path, root: Path):
        self.base, self.root = base, root

    def config(self, *changes: str):
        return compose(
            "srpo",
            [
                "platform=cpu",
                f"data.train_files={self.base}/data.parquet",
                f"actor_rollout_ref.model.path={self.base}/model",
                f"trainer.default_local_dir={self.root}",
                "trainer.total_training_steps=10",
                "trainer.val_before_train=false",
                *(change.replace("BASE", str(self.base)).replace("ROOT", str(self.root)) for change in changes),
            ],
        )

    def save(self, step: int, *changes: str) -> Path:
        config = self.config(*changes)
        srpo = settings(config.srpo)
        folder = store.step_folder(self.root, step)
        store.begin(folder, step)
        for part in ("actor", "teacher") if srpo.distils and srpo.teacher.kind == "ema" else ("actor",):
            (folder / part).mkdir()
            (folder / part / "model_world_size_1_rank_0.pt").write_bytes(b"weights")
        store.finish(folder, step=step, run="run", identity=identity(config, srpo))
        return folder

    def plan(self, *changes: str):
        config = self.config(*changes)
        return plan_resume(config, settings(config.srpo))


@pytest.fixture
def case(base, tmp_path):
    return Case(base, tmp_path / "checkpoints")


def test_nothing_there_is_a_fresh_start(case):
    plan = case.plan("trainer.resume_mode=auto")
    assert (plan.folder, plan.problems, plan.notes, plan.finished) == (None, [], [], None)


def test_the_newest_complete_one_whatever_the_tracker_says(case):
    case.save(2)
    case.save(4)
    broken = case.save(6)
    (broken / "actor" / "model_world_size_1_rank_0.pt").unlink()
    assert (case.root / store.TRACKER).read_text() == "6"
    plan = case.plan("trainer.resume_mode=auto")
    assert plan.checkpoint.step == 4
    assert plan.problems == []
    assert any("global_step_6 is passed over: actor/model_world_size_1_rank_0.pt is missing" in n for n in plan.notes)


def test_only_a_first_save_that_was_interrupted_is_a_fresh_start(case):
    store.begin(store.step_folder(case.root, 2), 2)
    plan = case.plan("trainer.resume_mode=auto")
    assert plan.folder is None
    assert plan.problems == []
    assert "the save was interrupted" in plan.notes[0]


def test_folders_that_may_be_whole_are_not_silently_trained_over(case):
    (case.save(2) / store.MARKER).unlink()
    (problem,) = case.plan("trainer.resume_mode=auto").problems
    assert "resume_mode=resume_path" in problem
    assert "global_step_2" in problem
    named = case.plan("trainer.resume_mode=resume_path", "trainer.resume_from_path=ROOT/global_step_2")
    assert named.problems == []
    assert named.unmarked == case.root / "global_step_2"
    other = case.plan(
        "trainer.resume_mode=resume_path", "trainer.resume_from_path=ROOT/global_step_2", "trainer.n_gpus_per_node=2"
    )
    assert "another number of ranks than 2" in other.problems[0]


def test_disable_says_what_it_will_replace(case):
    case.save(2)
    plan = case.plan("trainer.resume_mode=disable")
    assert plan.folder is None
    assert "checkpoints of another run up to step 2" in plan.notes[0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["trainer.n_gpus_per_node=2"], "written by 1 ranks, this run has 2"),
        (
            ["actor_rollout_ref.model.path=BASE/other"],
            "another model than actor_rollout_ref.model.path: hidden_size 32",
        ),
        (["data.train_files=BASE/more.parquet"], "srpo.checkpoint.restart_data=true"),
        (["data.train_batch_size=16"], "train_batch_size 32 -> 16"),
        (["data.seed=7"], "seed 1 -> 7"),
        (["srpo.teacher.dtype=bfloat16"], "holds a teacher in float32: set srpo.teacher.dtype=float32"),
        (["trainer.v1.trainer_mode=srpo_colocate_async"], "was written by the synchronous trainer"),
        (["trainer.resume_mode=sometimes"], "not one of auto, resume_path, disable"),
        (["trainer.resume_mode=resume_path"], "must name a folder global_step_N"),
        (["trainer.resume_mode=resume_path", "trainer.resume_from_path=ROOT/global_step_9"], "no such folder"),
    ],
)
def test_refused(case, changes, says):
    case.save(2)
    (problem,) = case.plan("trainer.resume_mode=auto", *changes).problems
    assert says in problem


def test_a_damaged_checkpoint_that_is_named_is_refused(case):
    folder = case.save(2)
    (folder / "actor" / "model_world_size_1_rank_0.pt").write_bytes(b"")
    (problem,) = case.plan("trainer.resume_mode=resume_path", f"trainer.resume_from_path={folder}").problems
    assert "has 0 bytes instead of 7" in problem


def test_a_checkpoint_without_a_teacher(case):
    case.save(2, "srpo.teacher.kind=frozen")
    (problem,) = case.plan("trainer.resume_mode=auto").problems
    assert "has no teacher, so it cannot go on" in problem
    assert case.plan("trainer.resume_mode=auto", "srpo.teacher.kind=live").problems == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["srpo.topk=20"], "hold from here on: topk 100 -> 20"),
        (["srpo.teacher.kind=live"], "teacher.kind ema -> live"),
        (["actor_rollout_ref.actor.optim.lr=1e-5"], "the learning rate was 5e-06 and is 1e-05"),
        (["data.train_files=BASE/more.parquet", "srpo.checkpoint.restart_data=true"], "from their beginning"),
        (
            ["trainer.v1.trainer_mode=srpo_colocate_async", "srpo.checkpoint.restart_data=true"],
            "from their beginning",
        ),
    ],
)
def test_adapted_and_said(case, changes, says):
    case.save(2)
    plan = case.plan("trainer.resume_mode=auto", *changes)
    assert plan.problems == []
    assert any(says in note for note in plan.notes)


def test_guards_dumps_and_where_the_teacher_rests_may_change_without_a_word(case):
    case.save(2)
    changes = ("srpo.guards.unmixed=5", "srpo.dump_dir=/tmp/x", "srpo.teacher.offload_policy=false")
    plan = case.plan("trainer.resume_mode=auto", *changes)
    assert plan.problems == []
    assert plan.notes == [f"resuming from {case.root}/global_step_2, step 2"]


def test_nothing_left_to_train(case):
    case.save(10)
    assert "step 10, and the run ends at step 10: nothing is left" in case.plan("trainer.resume_mode=auto").finished
    assert case.plan("trainer.resume_mode=auto", "trainer.total_training_steps=11").finished is None
    assert case.plan("trainer.resume_mode=auto", "trainer.val_only=true").finished is None
    validated = case.plan("trainer.resume_mode=auto", "trainer.val_before_train=true")
    assert validated.finished is None
    assert "nothing is left to train" in validated.notes[-1]


LORA = "actor_rollout_ref.model.lora_rank=8"


def test_an_adapter_goes_on_as_it_was(case):
    case.save(2, LORA)
    assert case.plan("trainer.resume_mode=auto", LORA).problems == []
    notes = case.plan("trainer.resume_mode=auto", LORA, "srpo.topk=20").notes
    assert any(note.endswith("hold from here on: topk 100 -> 20") for note in notes)


@pytest.mark.parametrize(
    ("before", "now", "says"),
    [
        ([LORA], ["actor_rollout_ref.model.lora_rank=4"], "lora_rank 8 -> 4"),
        ([LORA], [], "lora_rank 8 -> None"),
        ([], [LORA], "lora_rank None -> 8"),
        ([LORA], [LORA, "srpo.teacher.lora_ema=exact"], "of the form srpo.teacher.lora_ema=adapter; set it to that"),
    ],
)
def test_another_adapter_or_form_of_the_teacher_is_refused(case, before, now, says):
    case.save(2, *before)
    assert any(says in problem for problem in case.plan("trainer.resume_mode=auto", *now).problems)


def test_the_form_of_a_teacher_does_not_matter_where_there_is_no_adapter(case):
    case.save(2)
    plan = case.plan("trainer.resume_mode=auto", "srpo.teacher.lora_ema=exact")
    assert (plan.problems, len(plan.notes)) == ([], 1)
