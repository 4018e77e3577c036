"""What a run left behind, read back: its metrics over all its starts, its config and its record.

A run's folder is `trainer.default_local_dir`. Each start wrote `srpo_run/<time>/{config.yaml, run.json, metrics.jsonl}`
into it (see `srpo_verl.training.durable.run_record`). The demo keeps that folder in `checkpoints`, with the metrics
beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from workflows.metrics_log import Record, read_what_can_be_read

STARTS, METRICS = "srpo_run", "metrics.jsonl"
# What a run dumps, by the key that says where: the folder's name in the run's own.
DUMPS = {
    "trainer.rollout_data_dir": "rollouts",
    "trainer.validation_data_dir": "validation",
    "srpo.dump_dir": "teacher_prompts",
    "srpo.inspect_dir": "inspect",
}


@dataclass(frozen=True)
class Run:
    """One training run, all its starts together.

    Attributes:
        records: one per step, ascending; see `merge`.
        config: resolved config of the last start, or of the one that was asked for.
        record: `run.json` of that start: versions, seeds, git state, differences from the paper.
        checkpoints: `trainer.default_local_dir`, the parent of the `global_step_N` folders.
        problems: what of the metrics is missing or could not be read, in words.
    """

    folder: Path
    records: list[Record]
    config: DictConfig
    record: dict[str, Any]
    starts: int
    checkpoints: Path
    problems: list[str] = field(default_factory=list)

    def get(self, key: str, default: Any = None) -> Any:
        """A value of the config by its dotted name."""
        value = OmegaConf.select(self.config, key)
        return default if value is None else value

    def dump_places(self, key: str) -> list[Path]:
        """Where the dump that `key` of DUMPS places may be, the likeliest first.

        What was below the run's folder is looked for in it wherever it is now: another run may have its old place.
        """
        named, own = self.get(key), self.get("trainer.default_local_dir")
        places = [self.folder / DUMPS[key], self.checkpoints / DUMPS[key]]
        if named is None:
            return places
        place = Path(str(named))
        if own is not None and place.is_relative_to(str(own)):
            place = self.checkpoints / place.relative_to(str(own))
        return [place, *places]


def read_run(folder: Path, *, at_step: int | None = None) -> Run:
    """Read a run. Raises FileNotFoundError if the folder holds none, ValueError if its config or record is damaged.

    Metrics are read as far as they can be; what is missing is in `problems`.

    Args:
        at_step: config and record are of the start that trained this step, which a later one may have changed.
    """
    checkpoints = next((place for place in (folder, folder / "checkpoints") if (place / STARTS).is_dir()), None)
    if checkpoints is None:
        raise FileNotFoundError(
            f"{folder} holds no run: neither {STARTS}/ nor checkpoints/{STARTS}/ is there. Name the folder that was "
            "trainer.default_local_dir."
        )
    starts = sorted(start for start in (checkpoints / STARTS).iterdir() if (start / "config.yaml").is_file())
    if not starts:
        raise FileNotFoundError(f"{checkpoints / STARTS} has no start with a config.yaml: the run never began")
    files = _metrics_files(folder, checkpoints)
    read = [read_what_can_be_read(file) for file in files]
    problems = [problem for _, found in read for problem in found]
    if not files:
        problems.append("there are no metrics: was `file` in trainer.logger?")
    chosen = len(starts) if at_step is None else _start_of(starts, at_step)
    start = starts[chosen - 1]
    record = start / "run.json"
    if not record.is_file():
        problems.append("run.json is missing: versions, git commit and differences from the paper are not known")
    return Run(
        folder=folder,
        records=merge(records for records, _ in read),
        config=_config(start / "config.yaml"),
        record=_record(record) if record.is_file() else {},
        starts=chosen,
        checkpoints=checkpoints,
        problems=problems,
    )


def _start_of(starts: list[Path], step: int) -> int:
    """How many starts there were when `step` was trained; all of them if none has logged it."""
    for number in range(len(starts), 0, -1):
        metrics = starts[number - 1] / METRICS
        records = read_what_can_be_read(metrics)[0] if metrics.is_file() else []
        trained = [record.step for record in records if not _validation_only(record)]
        if trained and min(trained) <= step:
            return number
    return len(starts)


def read_records(folder: Path) -> list[Record]:
    """The metrics of a run over all its starts, while it runs too; none as long as nothing was logged."""
    checkpoints = next((place for place in (folder, folder / "checkpoints") if (place / STARTS).is_dir()), folder)
    return merge(read_what_can_be_read(file)[0] for file in _metrics_files(folder, checkpoints))


def _metrics_files(folder: Path, checkpoints: Path) -> list[Path]:
    """One per start, in their order."""
    files = sorted((checkpoints / STARTS).glob(f"*/{METRICS}"))
    return files or ([folder / METRICS] if (folder / METRICS).is_file() else [])


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """The folders of runs at or below the given ones, sorted; a folder that is a run is not searched further."""
    found: set[Path] = set()
    for folder in folders:
        for marker in sorted(folder.rglob(STARTS)):
            place = marker.parent
            found.add(place.parent if place.name == "checkpoints" else place)
    return sorted(found)


def merge(starts: Iterable[list[Record]]) -> list[Record]:
    """Records of consecutive starts as one list, ascending in step.

    A later start replaces what an earlier one had logged from the first step on that it trained: those steps were done
    again from a checkpoint. What it logged before training, the validation of the checkpoint, is added to that step.
    """
    merged: dict[int, Record] = {}
    for records in starts:
        if trained := [record.step for record in records if not _validation_only(record)]:
            merged = {step: record for step, record in merged.items() if step < min(trained)}
        for record in records:
            same_step = merged[record.step].data if record.step in merged else {}
            merged[record.step] = Record(step=record.step, data={**same_step, **record.data})
    return [merged[step] for step in sorted(merged)]


def _validation_only(record: Record) -> bool:
    return all(name.startswith("val-") for name in record.data)


def _config(path: Path) -> DictConfig:
    try:
        loaded = OmegaConf.load(path)
    except (YAMLError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(loaded, DictConfig):
        raise ValueError(f"{path} is not the config of a run")  # noqa: TRY004 - the file is wrong, not the argument
    return loaded


def _record(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return loaded if isinstance(loaded, dict) else {}
