"""Whose reward functions a run may use, and which version of them."""

from __future__ import annotations

from importlib.metadata import entry_points
from importlib.util import find_spec

from omegaconf import DictConfig

from srpo_verl.base.versions import sources_digest

# Packages in it bring graders of data sources (`reward_fns.register`).
GROUP = "srpo_verl.rewards"
# Of this distribution, whose version the run's record has.
_OURS = ("reward_fns", "workflows", "srpo_verl")


def reward_sources(config: DictConfig) -> dict[str, str]:
    """Of `reward.custom_reward_function` and of installed packages with graders: name and origin.

    As `{"my_rewards": "my-rewards 0.1.0, sha256 0123456789ab"}`. The hash is of the Python files of the top-level
    package, or of the single file. Our own functions are not listed: the run's record has the version of all of it.
    """
    path, name = config.reward.custom_reward_function.path, config.reward.custom_reward_function.name
    if path is None:
        return {}
    found, module = {}, ""
    if str(path).startswith("pkg://"):
        module = str(path).removeprefix("pkg://").replace("/", ".")
        if module.partition(".")[0] not in _OURS:
            found[f"{path}:{name}"] = _of_module(module)
    else:
        found[f"{path}:{name}"] = f"sha256 {sources_digest(str(path).removeprefix('file://'), package=False)}"
    for point in entry_points(group=GROUP) if module == "reward_fns" else ():
        package = f"{point.dist.name} {point.dist.version}, " if point.dist else ""
        found[point.module] = f"{package}{_of_module(point.module)}"
    return dict(sorted(found.items()))


def _of_module(name: str) -> str:
    try:
        spec = find_spec(name.partition(".")[0])
    except (ImportError, ValueError):
        spec = None  # verl, or `reward_fns`, says what is wrong with it
    package = spec is not None and spec.submodule_search_locations is not None
    return f"sha256 {sources_digest(spec.origin if spec else None, package=package)}"
