"""The states of a run: what `srpo.states` keep from step to step, and a checkpoint holds. No verl, no Ray.

They are JSON, whose numbers and order of keys come back as they were: a run that is resumed routes as if it had never
been interrupted.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from srpo_verl import variants
from srpo_verl.base.files import write_atomically
from srpo_verl.config import SRPOConfig
from srpo_verl.core import Rollouts
from srpo_verl.variants import VariantError

FILE = "srpo_states.json"
States = dict[str, dict[str, Any]]


def question_id(prompt: Any) -> str:
    """The same for the same chat messages in every step and run."""
    messages = prompt.tolist() if hasattr(prompt, "tolist") else prompt
    return hashlib.sha256(json.dumps(messages, sort_keys=True, default=str).encode()).hexdigest()[:24]


def next_states(states: Mapping[str, Any], rollouts: Rollouts, srpo: SRPOConfig) -> States:
    """What each of `srpo.states` holds after a step, of what it held before.

    Raises:
        VariantError: one that is no dict, or that JSON would not give back as it is.
    """
    found: States = {}
    for variant in (variants.get("state", name) for name in srpo.states):
        before = states.get(variant.name, {})
        if variant.built_in:
            found[variant.name] = variant(before, rollouts, srpo)
            continue
        theirs = replace(rollouts.copied(), states=copy.deepcopy(dict(rollouts.states)))
        after = variant(copy.deepcopy(before), theirs, srpo)
        if not isinstance(after, dict) or variant.named(_through_json, after) != after:
            raise VariantError(f"{variant} must give a dict that JSON holds as it is: text keys, lists, no tuples")
        found[variant.name] = after
    return found


def save_states(folder: Path, states: States) -> None:
    """Into a checkpoint's folder; nothing if there are none."""
    if states:
        write_atomically(folder / FILE, json.dumps(states))


def load_states(folder: Path, srpo: SRPOConfig) -> States:
    """Those of `srpo.states` that a checkpoint's folder holds; one that was named after it was written begins empty."""
    path = folder / FILE
    saved = json.loads(path.read_text()) if path.is_file() else {}
    return {name: saved[name] for name in srpo.states if name in saved}


def _through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
