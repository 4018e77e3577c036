"""Actors that are watched, and the role that gets our worker: found, or said by name."""

from types import SimpleNamespace

import pytest
import ray
from omegaconf import OmegaConf
from verl.trainer.ppo.utils import Role
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from srpo_verl.training.watch.driver_watch import STAGES, watched
from srpo_verl.verl_names import driver
from srpo_verl.verl_names.driver import VerlChangedError, actors_of, check_watched, engines_of, put_in_worker, ranks

QUEUE = (("TransferQueue controller", "controller"), ("TransferQueue storage 0", "storage"))


@pytest.fixture(autouse=True)
def queue(monkeypatch):
    monkeypatch.setattr(driver, "queue_actors", lambda: QUEUE)


def replica(*servers: str) -> SimpleNamespace:
    return SimpleNamespace(servers=list(servers))


def running(**changes) -> SimpleNamespace:
    """A trainer of verl's as far as its actors go; handles are strings."""
    replicas = [replica("head", "second node"), replica("other head")]
    parts = {
        "config": OmegaConf.create(
            {
                "transfer_queue": {"backend": {"storage_backend": "SimpleStorage"}},
                "reward": {"reward_model": {"enable": False}},
            }
        ),
        "use_critic": False,
        "actor_rollout_wg": SimpleNamespace(workers=["a", "b"]),
        "ref_policy_wg": SimpleNamespace(workers=["a", "b"]),  # of verl's role ActorRolloutRef: the same workers
        "llm_server_manager": SimpleNamespace(get_replicas=lambda: replicas, global_load_balancer="router"),
        "reward_loop_manager": SimpleNamespace(reward_loop_worker_handles=["r"]),
        "agent_loop_manager": SimpleNamespace(agent_loop_workers=["l"]),
    }
    return SimpleNamespace(**{**parts, **changes})


def test_all_actors_are_found_under_names_a_person_would_give_them():
    assert actors_of(running()) == {
        **dict(QUEUE),
        "actor worker, rank 0": "a",
        "actor worker, rank 1": "b",
        "vLLM server 0": "head",
        "vLLM server 1": "second node",
        "vLLM server 2": "other head",
        "vLLM request router": "router",
        "reward worker 0": "r",
        "agent loop worker 0": "l",
    }
    assert engines_of(running()) == {"vLLM server 0", "vLLM server 2"}
    check_watched(running())


def test_engines_on_gpus_of_their_own_are_found_too():
    own = SimpleNamespace(get_replicas=lambda: [replica("own head")], global_load_balancer="own router")
    found = actors_of(running(standalone_server_manager=own))
    assert (found["vLLM server 3"], found["vLLM request router 1"]) == ("own head", "own router")
    assert engines_of(running(standalone_server_manager=own)) == {"vLLM server 0", "vLLM server 2", "vLLM server 3"}
    # Without engines on the GPUs that train, verl's manager of those is there, and empty.
    empty = SimpleNamespace(get_replicas=list, global_load_balancer="router")
    check_watched(running(llm_server_manager=empty, standalone_server_manager=own))


def test_while_the_trainer_starts_those_are_found_that_are_there():
    starting = SimpleNamespace(actor_rollout_wg=SimpleNamespace(workers=["a"]))
    assert actors_of(starting) == {**dict(QUEUE), "actor worker, rank 0": "a"}
    assert engines_of(starting) == set()


# verl has renamed something: before, those actors were no longer watched, without a word.
RENAMED = {
    "actor_rollout_wg": SimpleNamespace(handles=["a"]),
    "llm_server_manager": SimpleNamespace(get_replicas=list, router="router"),
    "reward_loop_manager": SimpleNamespace(workers=["r"]),
    "agent_loop_manager": SimpleNamespace(workers=["l"]),
}


@pytest.mark.parametrize("attribute", RENAMED)
def test_what_is_no_longer_held_under_its_name_is_an_error(attribute):
    with pytest.raises(AttributeError):
        actors_of(running(**{attribute: RENAMED[attribute]}))


class Trainer(SimpleNamespace):
    began = False

    def on_train_begin(self):
        self.began = True


for stage in STAGES:
    setattr(Trainer, stage, None)
watched(Trainer)


@pytest.mark.parametrize(
    ("attribute", "kind"),
    [
        ("actor_rollout_wg", "actor worker"),
        ("llm_server_manager", "vLLM server, no vLLM request router"),
        ("agent_loop_manager", "agent loop worker"),
        ("reward_loop_manager", "reward worker"),
    ],
)
def test_training_does_not_begin_before_every_kind_of_actor_is_found(attribute, kind):
    trainer = Trainer(**vars(running()))
    trainer.on_train_begin()
    assert trainer.began
    parts = vars(running())
    del parts[attribute]
    if attribute == "actor_rollout_wg":
        del parts["ref_policy_wg"]
    late = Trainer(**parts)
    with pytest.raises(VerlChangedError, match=f"no {kind} is found to be watched"):
        late.on_train_begin()
    assert not late.began


def test_what_a_run_does_not_have_is_not_missed():
    check_watched(running(reward_loop_manager=SimpleNamespace(reward_loop_worker_handles=["r"])))
    colocated = OmegaConf.merge(running().config, {"reward": {"reward_model": {"enable": True}}})
    check_watched(running(config=colocated, reward_loop_manager=SimpleNamespace(reward_loop_worker_handles=None)))
    with pytest.raises(VerlChangedError, match="no critic worker is found"):
        check_watched(running(use_critic=True))


def test_storage_is_missed_where_the_backend_has_some(monkeypatch):
    monkeypatch.setattr(driver, "queue_actors", lambda: QUEUE[:1])
    with pytest.raises(VerlChangedError, match="no TransferQueue storage is found"):
        check_watched(running())
    other = OmegaConf.merge(running().config, {"transfer_queue": {"backend": {"storage_backend": "Mooncake"}}})
    check_watched(running(config=other))


class Ours(ActorRolloutRefWorker):
    pass


@pytest.mark.parametrize("role", [Role.Actor, Role.ActorRollout, Role.ActorRolloutRef])
def test_whichever_role_holds_the_actor_gets_our_worker(role):
    others = {Role.RefPolicy: ray.remote(ActorRolloutRefWorker), Role.Critic: ray.remote(TrainingWorker)}
    mapping = {role: ray.remote(ActorRolloutRefWorker), **others}
    put_in_worker(mapping, Ours)
    assert issubclass(driver.undecorated(mapping[role]), Ours)
    assert {name: mapping[name] for name in others} == others


@pytest.mark.parametrize("roles", [(), (Role.Actor, Role.Rollout)])
def test_a_mapping_that_does_not_say_who_holds_the_actor_is_refused(roles):
    mapping = {role: ray.remote(ActorRolloutRefWorker) for role in roles}
    with pytest.raises(VerlChangedError, match="so Ours cannot take its place"):
        put_in_worker(mapping | {Role.Critic: ray.remote(TrainingWorker)}, Ours)


def test_a_class_that_ray_does_not_wrap_is_refused():
    with pytest.raises(VerlChangedError, match="does not show the class"):
        driver.undecorated(ActorRolloutRefWorker)


def test_ranks_are_asked_for_once():
    asked = []
    group = SimpleNamespace(_dispatch_info={}, _query_dispatch_info=lambda mesh: asked.append(mesh) or [0, 0, 1, 1])
    assert [ranks(group, "teacher"), ranks(group, "teacher")] == [2, 2]
    assert asked == ["teacher"]
