"""`actor_rollout_ref.model.path`: a folder, or a name on the hub."""

from __future__ import annotations

import os

from omegaconf import DictConfig, OmegaConf


def missing_folder(config: DictConfig) -> str | None:
    """Why the model's folder cannot be read; None if it is there, or if the path may be a name on the hub."""
    path = os.path.expanduser(str(config.actor_rollout_ref.model.path))
    tiny = OmegaConf.select(config, "tiny.folder")
    of_tiny = tiny is not None and path.startswith(f"{os.path.expanduser(str(tiny))}/")
    # A name on the hub is `model` or `owner/model`.
    no_name = path.startswith((".", "/")) or ("://" not in path and path.count("/") > 1)
    if not (of_tiny or no_name) or os.path.isdir(path):
        return None
    said = f"actor_rollout_ref.model.path={path}: there is no such folder"
    if not of_tiny:
        return said
    builder = OmegaConf.select(config, "tiny.builder") or "workflows.tiny.start"
    return (
        f"{said}: make it by `python -m {builder} --out {tiny}`, or name one that is there, as `srpo demo` leaves it: "
        "tiny.folder=runs/demo/tiny"
    )
