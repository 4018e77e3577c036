"""A key that the config lacks: which one was meant. Hydra advises `+key=value` for all of them, and few take it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

# What Hydra says: of an override, of one with `~`, and of a YAML file.
_SAID = re.compile(
    r"Could not override '(?P<override>[^']+)'|'(?P<deleted>[^']+)' does not exist"
    r"|not (?:in '|in struct)[^']*'?\n\s+full_key: (?P<file>\S+)"
)
_ADVICE = re.compile(r"To append to your config use (\+.*)")
# Nodes whose keys verl hands on without knowing them: engine_kwargs, ray_kwargs, override_config, ...
_FREE = re.compile(r".*kwargs|override_.*|options")


def unknown_key(said: str) -> str | None:
    """The key that Hydra's message is about; None if it is about something else."""
    found = _SAID.search(said)
    return next(filter(None, found.groups()), None) if found else None


def sentence(said: str, key: str, config: DictConfig, groups: Sequence[str] = ()) -> str:
    """What to write instead of `key`.

    Args:
        said: Hydra's message.
        config: with the keys that there are.
        groups: which are chosen as keys are set, e.g. `platform`.
    """
    tree = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=False))
    parent, name, rest = _deepest(tree, key)
    siblings = _select(tree, parent)
    meant = ""
    if close := get_close_matches(name, [*siblings, *(groups if not parent else ())], n=1, cutoff=0.7):
        beside = ".".join([*parent, close[0]])
        meant = ".".join([beside, *rest]) if ".".join([beside, *rest]) in _keys(tree) else beside
    meant = meant or " or ".join(_elsewhere(tree, key))
    added = _ADVICE.search(said)
    if added and (not siblings or any(_FREE.fullmatch(part) for part in [*parent, name])):
        return f"{key} is not in the config: add it by {added[1]}" + (f", or did you mean {meant}?" if meant else "")
    if meant:
        return f"{key} is no key: did you mean {meant}?"
    return f"{key} is no key: {'.'.join(parent) or 'the config'} has {', '.join(sorted(siblings))}"


def _elsewhere(tree: Mapping[str, Any], key: str) -> list[str]:
    """Keys of the same name at other places, else one that is spelt alike; Hydra's own only for one of Hydra's."""
    of_hydra = key.startswith("hydra.")
    keys = [other for other in _keys(tree) if of_hydra or not other.startswith("hydra.")]
    same_name = [other for other in keys if other.rpartition(".")[2] == key.rpartition(".")[2]]
    others = [other for other in keys if not key.startswith(f"{other}.")]
    return get_close_matches(key, same_name, cutoff=0) or get_close_matches(key, others, n=1, cutoff=0.8)


def _deepest(tree: Mapping[str, Any], key: str) -> tuple[list[str], str, list[str]]:
    """Of a dotted key: the node that is there, the first part that is no node in it, and what follows."""
    parts = key.split(".")
    for place, part in enumerate(parts):
        below = _select(tree, parts[:place]).get(part)
        if not isinstance(below, dict):
            return parts[:place], part, parts[place + 1 :]
    return parts[:-1], parts[-1], []


def _select(tree: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any]:
    for part in path:
        tree = tree[part]
    return tree


def _keys(tree: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in tree.items():
        yield f"{above}{name}"
        if isinstance(value, dict):
            yield from _keys(value, f"{above}{name}.")
