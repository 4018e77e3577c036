"""Which method, model, benchmark and seed a run is: from its config, or from what the user says."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from srpo_verl.config import FAMILY, METHODS, SRPOConfig, method_settings
from workflows.report.config_differences import differing_settings
from workflows.run_reader import Run

TOGETHER = " + "
# The settings that name the functions of a method.
_NAMED = (
    *("route", "policy_gradient", "advantage", "divergence", "weighting", "providers"),
    *("asked", "contrast", "modulator", "question_weight"),
)
ALL = METHODS | FAMILY
ORDER = tuple(ALL.values())


@dataclass(frozen=True)
class Labels:
    """What a run is called. None: as its config says."""

    method: str | None = None
    model: str | None = None
    benchmark: str | None = None
    seed: str | None = None

    @classmethod
    def parse(cls, text: str) -> tuple[str, Labels]:
        """`PATTERN:method=...,benchmark=...` as (pattern, labels). Raises ValueError if it is not that."""
        pattern, colon, settings = text.rpartition(":")
        known = [field.name for field in fields(cls)]
        pairs = [part.partition("=") for part in settings.split(",")]
        if not (colon and pattern) or any(key not in known or not value for key, _, value in pairs):
            raise ValueError(f"{text!r} is not PATTERN:KEY=VALUE[,KEY=VALUE], where KEY is one of {', '.join(known)}")
        return pattern, cls(**{key: value for key, _, value in pairs})


def method_of(run: Run) -> str:
    """The paper's name for the run's `srpo` settings; the experiment's name for a combination it has none for."""
    if run.get("srpo") is None:
        return str(run.get("trainer.experiment_name", "unnamed"))
    own = _traits({key: run.get(f"srpo.{key}", default) for key, default in vars(SRPOConfig()).items()})
    alike = [(title, beta) for title, (*rest, beta) in _methods().items() if rest == own[:-1]]
    if not alike:
        return str(run.get("trainer.experiment_name", "unnamed"))
    # The weights tell methods apart that are alike in all else; another beta is no other method.
    return next((title for title, beta in alike if beta == own[-1]), alike[0][0])


def _traits(srpo: Mapping[str, Any]) -> list[Any]:
    """What makes a method of `srpo.*` settings: who is distilled, who not, and by which functions."""
    weighted = [float(srpo[key]) > 0 for key in ("advantage_mix", "beta")]
    return [*(srpo[key] for key in _NAMED), *weighted]


@cache
def _methods() -> dict[str, list[Any]]:
    return {title: _traits({**vars(SRPOConfig()), **method_settings(name)}) for name, title in ALL.items()}


def model_of(run: Run) -> str:
    """The model's name; of a local folder its last part, with the one before where that says nothing."""
    path = PurePosixPath(str(run.get("actor_rollout_ref.model.path", "unknown model")))
    if not path.is_absolute() and len(path.parts) == 2:
        return str(path)
    return "/".join(path.parts[-2:]) if path.name in ("model", "actor", "huggingface", "hf") else path.name


def seed_of(run: Run) -> str:
    """`data.seed`, which decides the order of the data; "unknown" where the config has none."""
    return str(run.get("data.seed", "unknown"))


def data_of(run: Run) -> str:
    """What the run was validated on: verl's data sources, else the name of its validation or training file."""
    sources = sorted({source for record in run.records for source in record.held_out_names()})
    if sources:
        return TOGETHER.join(sources)
    files: Any = run.get("data.val_files") or run.get("data.train_files") or "unknown data"
    first = files if isinstance(files, str) else next(iter(files), "unknown data")
    path = Path(str(first))
    return f"{path.parent.name}/{path.stem}" if path.parent.name else path.stem


def matches(run: Run, pattern: str) -> bool:
    """Whether `pattern`, as a shell's, fits the run's folder: its path, absolute or from here, or its name."""
    names = (str(run.folder), os.path.relpath(run.folder), run.folder.name)
    return any(fnmatchcase(name, pattern) for name in names)


def given(run: Run, overrides: Mapping[str, Labels]) -> Labels:
    """What the overrides that match the run say; the last one wins."""
    return _first(*reversed([labels for pattern, labels in overrides.items() if matches(run, pattern)]))


def labels_of(run: Run, overrides: Mapping[str, Labels]) -> Labels:
    """All four labels: as given, else as the config says."""
    return _first(given(run, overrides), Labels(method_of(run), model_of(run), data_of(run), seed_of(run)))


def _first(*labels: Labels) -> Labels:
    """Of each label the first that is there."""
    names = [field.name for field in fields(Labels)]
    return Labels(*(next((v for found in labels if (v := getattr(found, name)) is not None), None) for name in names))


def told_apart(runs: Sequence[Run], labels: Sequence[Labels], overrides: Mapping[str, Labels]) -> list[str]:
    """The method of each run. Runs of one method, model and data that differ in more than their seed are told apart.

    They must not be averaged as if they were seeds of one thing: the variant with most runs (of two as large, the one
    nearest to the paper) keeps the plain name, the others get the settings in which they differ from it.
    """
    methods = [str(label.method) for label in labels]
    for indices in _comparable(runs, labels, overrides):
        differing = differing_settings([runs[index] for index in indices])
        variants: dict[tuple[str, ...], list[int]] = {}
        for place, index in enumerate(indices):
            variants.setdefault(tuple(values[place] for values in differing.values()), []).append(index)
        plain = min(variants, key=lambda v: (-len(variants[v]), len(_from_paper(runs[variants[v][0]]))))
        for variant, members in variants.items():
            parts = [
                f"{key.rsplit('.', 1)[-1]}={value}"
                for key, value, usual in zip(differing, variant, plain, strict=True)
                if value != usual
            ]
            if parts:
                more = f", {len(parts) - 3} more" if len(parts) > 3 else ""
                for index in members:
                    methods[index] = f"{methods[index]} ({', '.join(parts[:3])}{more})"
    return methods


def _comparable(runs: Sequence[Run], labels: Sequence[Labels], overrides: Mapping[str, Labels]) -> Iterable[list[int]]:
    """Indices of the runs of one method and model that share data, directly or through another run."""
    groups: list[tuple[tuple[str | None, str | None], set[str], list[int]]] = []
    for index, (run, label) in enumerate(zip(runs, labels, strict=True)):
        if given(run, overrides).method is not None:
            continue
        key, data, members = (label.method, label.model), set(str(label.benchmark).split(TOGETHER)), [index]
        for group in [group for group in groups if group[0] == key and group[1] & data]:
            groups.remove(group)
            data, members = data | group[1], group[2] + members
        groups.append((key, data, members))
    return [members for _, _, members in groups]


def _from_paper(run: Run) -> Mapping[str, Any]:
    return run.record.get("differs_from_table_3") or {}


def order(method: str) -> tuple[int, str]:
    """Sorts methods as the paper lists them, then by name."""
    base = next((name for name in sorted(ORDER, key=len, reverse=True) if method.startswith(name)), None)
    return (ORDER.index(base) if base else len(ORDER), method)
