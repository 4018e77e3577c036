"""What the watchdog says about prompts, checkpoints and dead workers."""

from types import SimpleNamespace

from omegaconf import OmegaConf
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayTaskError

from srpo_verl.training.durable.checkpoint_store import begin, finish
from srpo_verl.training.watch.driver_watch import newest_checkpoint, unfinished_prompts
from srpo_verl.training.watch.heartbeats import death, describe


def prompt(status):
    return {"is_prompt": True, "status": status, "global_steps": 2}


def test_unfinished_prompts_are_named_with_the_rollouts_that_are_there():
    train = {
        "a": prompt("running"),
        "b": prompt("finished"),
        "c": prompt("pending"),
        "a_0_0": {},
        "a_3_0": {},
        "b_0_0": {},
    }
    assert unfinished_prompts({"train": train, "val": {}}) == [
        "2 of 3 prompts are unfinished: uid a (running, 2 rollouts there), uid c (pending, 0 rollouts there)"
    ]
    assert unfinished_prompts({"train": {"b": prompt("finished")}}) == []


def test_many_unfinished_prompts_are_counted():
    (line,) = unfinished_prompts({"train": {str(n): prompt("running") for n in range(20)}}, at_most=2)
    assert line.startswith("20 of 20 prompts are unfinished: uid 0 ")
    assert line.endswith("and 18 more")


def test_the_newest_checkpoint_is_named(tmp_path):
    trainer = SimpleNamespace(config=OmegaConf.create({"trainer": {"default_local_dir": str(tmp_path)}}))
    assert newest_checkpoint(trainer) == "there is no checkpoint yet, so the steps of this start are lost"
    begin(tmp_path / "global_step_40", 40)
    finish(tmp_path / "global_step_40", step=40, run="run")
    begin(tmp_path / "global_step_50", 50)  # a save that was interrupted
    assert newest_checkpoint(trainer) == "the newest checkpoint is of step 40; the steps after it are lost"


KILLED = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: create.<locals>.WorkerDict\n\tpid: 77\n"
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
    "unexpectedly exits with a connection error code 2. End of file. There are some potential root causes. (1) The "
    "process is killed by SIGKILL by OOM killer due to high memory usage."
)
EXITED = "The actor is dead. Worker exit type: USER_ERROR Worker exit detail: Worker exits with an exit code 3. More."


def died(text):
    error = ActorDiedError()
    error.error_msg = text
    return error


def test_rays_words_about_a_death_become_one_sentence():
    assert death(died(KILLED)).startswith("its process was killed")
    assert death(died(EXITED)) == "Worker exits with an exit code 3."


def test_a_lost_worker_is_found_behind_a_remote_call():
    assert describe(ValueError("a\nb")) == "ValueError: a b"
    direct = describe(died(KILLED))
    assert direct.startswith("WorkerDict is dead: its process was killed")
    assert describe(RayTaskError("f", "traceback", died(KILLED))) == direct


def test_rays_own_kill_for_want_of_memory_is_a_death():
    error = OutOfMemoryError("1 worker(s) were killed. Memory on the node was 23.10GB used / 23.54GB limit (0.98)")
    says = "a worker is dead: Ray killed it because the machine ran out of memory (23.10GB used / 23.54GB limit)"
    assert describe(error) == says
    assert describe(RayTaskError("f", "traceback", error)) == says
