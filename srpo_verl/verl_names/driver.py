"""What the driver takes from verl's trainer, Ray and TransferQueue by their private names."""

from __future__ import annotations

import functools
from collections.abc import Mapping, MutableMapping
from typing import Any

import ray
import transfer_queue as tq

SEE = "is this a verl that srpo_verl is tested with? `python -m srpo_verl.verl_names` tells what has changed"


class VerlChangedError(RuntimeError):
    """verl, Ray or TransferQueue is not what it was; the message says what is missing and for what."""


def undecorated(actor_class: Any) -> type:
    """The class under `@ray.remote`."""
    found = getattr(getattr(actor_class, "__ray_metadata__", None), "modified_class", None)
    if not isinstance(found, type):
        raise VerlChangedError(f"{actor_class} does not show the class that ray.remote was given: {SEE}")
    return found


def put_in_worker(mapping: MutableMapping[Any, Any], worker: type) -> None:
    """Give `worker`, a subclass of verl's, to the role that holds the actor, whichever of verl's roles that is.

    Args:
        mapping: verl's role -> remote class, changed in place.

    Raises:
        VerlChangedError: no role holds it, or several.
    """
    from verl.trainer.ppo.utils import Role
    from verl.workers.engine_workers import ActorRolloutRefWorker

    # The reference alone has the same class.
    roles = [
        role
        for role, found in mapping.items()
        if role != Role.RefPolicy and issubclass(undecorated(found), ActorRolloutRefWorker)
    ]
    if len(roles) != 1:
        raise VerlChangedError(
            f"verl gives its actor to {', '.join(map(str, roles)) or 'no role'}, not to one, so {worker.__name__} "
            f"cannot take its place: {SEE}"
        )
    mapping[roles[0]] = ray.remote(worker)


def lists_tools(agent_name: str) -> bool:
    """Whether an agent loop is verl's `ToolAgentLoop`, or extends it."""
    import hydra
    from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
    from verl.experimental.agent_loop.tool_agent_loop import ToolAgentLoop

    return issubclass(hydra.utils.get_class(_agent_loop_registry[agent_name]["_target_"]), ToolAgentLoop)


def ranks(group: Any, mesh: str) -> int:
    """How many parts a call to a worker group is cut into, for the workers' `mesh_name=mesh`."""
    return max(_parts_of_workers(group, mesh)) + 1


def workers_per_part(group: Any, mesh: str) -> int:
    """How many workers get the same part: 1 without sequence parallelism."""
    return len(_parts_of_workers(group, mesh)) // ranks(group, mesh)


def _parts_of_workers(group: Any, mesh: str) -> list[int]:
    if mesh not in group._dispatch_info:
        group._dispatch_info[mesh] = group._query_dispatch_info(mesh)
    return group._dispatch_info[mesh]


# ---- the actors of a run ---------------------------------------------------------------------------------------------

_MANAGERS = ("llm_server_manager", "standalone_server_manager")
_GROUPS = {"actor worker": "actor_rollout_wg", "reference worker": "ref_policy_wg", "critic worker": "critic_wg"}


def actors_of(trainer: Any) -> dict[str, Any]:
    """Handles of the actors that exist by now, by the name a person would give them.

    The trainer's own attributes appear while it starts; what they hold is there with them, or AttributeError.
    """
    found: dict[str, Any] = dict(queue_actors())
    for role, attribute in _GROUPS.items():
        for rank, worker in enumerate(getattr(trainer, attribute).workers if hasattr(trainer, attribute) else ()):
            if worker not in found.values():
                found[f"{role}, rank {rank}"] = worker
    servers = [server for replica in _replicas(trainer) for server in replica.servers]
    found |= {f"vLLM server {index}": server for index, server in enumerate(servers)}
    routers = [manager.global_load_balancer for manager in _server_managers(trainer)]
    found |= {f"vLLM request router{f' {index}' * bool(index)}": router for index, router in enumerate(routers)}
    if hasattr(trainer, "reward_loop_manager"):  # a colocated reward model has no workers
        workers = trainer.reward_loop_manager.reward_loop_worker_handles or ()
        found |= {f"reward worker {index}": worker for index, worker in enumerate(workers)}
    if hasattr(trainer, "agent_loop_manager"):
        workers = trainer.agent_loop_manager.agent_loop_workers
        found |= {f"agent loop worker {index}": worker for index, worker in enumerate(workers)}
    return found


def engines_of(trainer: Any) -> set[str]:
    """Which of `actors_of` hold an engine of vLLM: of several nodes that serve one model, the first."""
    first = [replica.servers[0] for replica in _replicas(trainer)]
    return {name for name, actor in actors_of(trainer).items() if actor in first}


def _server_managers(trainer: Any) -> list[Any]:
    """verl's managers of vLLM servers: of those on the GPUs that train, and of those on GPUs of their own."""
    return [getattr(trainer, name) for name in _MANAGERS if hasattr(trainer, name)]


def _replicas(trainer: Any) -> list[Any]:
    return [replica for manager in _server_managers(trainer) for replica in manager.get_replicas()]


def check_watched(trainer: Any) -> None:
    """Once the trainer is ready to train: every kind of actor that a run has is found.

    Raises:
        VerlChangedError: names the kinds that are not, whose death nobody would see.
    """
    found = actors_of(trainer)
    kinds = ["TransferQueue controller", "actor worker", "vLLM server", "vLLM request router", "agent loop worker"]
    if trainer.config.transfer_queue.backend.storage_backend == "SimpleStorage":
        kinds.append("TransferQueue storage")
    if trainer.use_critic:
        kinds.append("critic worker")
    if not trainer.config.reward.reward_model.enable:
        kinds.append("reward worker")
    if missing := [kind for kind in kinds if not any(name.startswith(kind) for name in found)]:
        raise VerlChangedError(f"no {', no '.join(missing)} is found to be watched: {SEE}")


@functools.cache
def queue_actors() -> tuple[tuple[str, Any], ...]:
    """TransferQueue's, which verl has started before the trainer."""
    units: Mapping[str, Any] = (tq.interface._TQ_STORAGE or {}).get("SimpleStorage", {})
    controller = ray.get_actor("TransferQueueController", namespace="transfer_queue")
    storage = [(f"TransferQueue storage {index}", unit) for index, unit in enumerate(units.values())]
    return (("TransferQueue controller", controller), *storage)
