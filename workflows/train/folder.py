"""The folder of a run that `srpo train` starts: it is `trainer.default_local_dir`, and outlives several starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from srpo_verl.base.lease import FOLDER, STARTING, Lease, refuse_if_alive, take
from srpo_verl.base.lease_files import write_end
from srpo_verl.training.durable.checkpoint_store import newest
from workflows.run_reader import DUMPS, METRICS, STARTS
from workflows.verl_run import RunFiles


@dataclass(frozen=True)
class TrainFiles(RunFiles):
    """Where a start keeps what. `earlier` names the starts that were there before it.

    The trainer itself makes the folder of a start (`training/durable/run_record.py`), so it appears during the run.
    """

    earlier: frozenset[str] = frozenset()

    @property
    def start(self) -> Path:
        """`srpo_run/<time>` of this start; a place that does not exist before the trainer has made it."""
        new = [place for place in _starts(self.folder) if place.name not in self.earlier]
        return max(new) if new else self.folder / STARTS / "not-yet"

    @property
    def metrics(self) -> Path:
        return self.start / METRICS

    @property
    def tensorboard(self) -> Path:
        return self.start / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        return self.folder


def claim_run(
    folder: Path, *, resume: bool, fresh: bool, tell: Callable[[str], object] = print
) -> tuple[TrainFiles, Lease]:
    """The folder, ready for a start, and its lease.

    Args:
        resume: go on with the run that is in it.
        fresh: begin anew; what is in it is moved beside it, to `<folder>.before-<time>`.
        tell: is given a sentence where another run's end is waited for.

    Raises:
        srpo_verl.base.lease.FolderTakenError: a run that lives has it.
        FileExistsError: something is in it and neither is given, or it is a file.
        ValueError: both are given.
        FileNotFoundError: there is nothing to resume.
    """
    if resume and fresh:
        raise ValueError("--resume goes on with a run, --fresh begins anew: give one of them")
    folder = folder.absolute()
    if folder.is_file():
        raise FileExistsError(f"--out {folder} is a file; name a folder")
    _check(folder, resume=resume, fresh=fresh)
    lease = take(folder, what=STARTING, tell=tell)
    try:
        _check(folder, resume=resume, fresh=fresh)  # another start may have come before ours
        if fresh and _contents(folder):
            earlier = folder.with_name(f"{folder.name}.before-{time.strftime('%Y%m%d-%H%M%S')}")
            folder.rename(earlier)
            write_end(earlier, lease.record.generation, "moved away")
            lease = take(folder, what=STARTING, tell=tell)
    except BaseException:
        lease.release("not started")
        raise
    lease.keep()
    files = TrainFiles(folder, earlier=frozenset(place.name for place in _starts(folder)))
    if files.log.exists():
        files.log.rename(folder / f"train.{len(files.earlier)}.log")
    return files, lease


def _check(folder: Path, *, resume: bool, fresh: bool) -> None:
    # A start that was killed early has left its lease alone.
    is_run = (folder / STARTS).is_dir() or (folder / FOLDER).is_dir()
    if resume and not is_run:
        refuse_if_alive(folder)
        raise FileNotFoundError(f"--resume: {folder} holds no run (no {STARTS}/ in it)")
    if not resume and not fresh and _contents(folder):
        refuse_if_alive(folder)
        what = "a run: go on with it by --resume, or begin anew by --fresh" if is_run else "other files"
        raise FileExistsError(f"{folder} holds {what}; or name another --out")


def _contents(folder: Path) -> list[Path]:
    """What is in it but the lease."""
    return [path for path in folder.iterdir() if path.name != FOLDER] if folder.is_dir() else []


def dump_settings(config: DictConfig, overrides: Sequence[str], folder: Path) -> dict[str, Path]:
    """The dumps that a config has in the working folder, which runs share, in the run's own: {key: place}.

    One that is off stays off; one at an absolute place, or named in `overrides` as a person typed them, stays there.
    """
    typed = {word.partition("=")[0].lstrip("+") for word in overrides}
    named = {key: OmegaConf.select(config, key) for key in DUMPS if key not in typed}
    return {
        key: folder / DUMPS[key] for key, place in named.items() if place and not Path(place).expanduser().is_absolute()
    }


def newest_checkpoint(folder: Path) -> Path | None:
    """The `global_step_N` that a resumed run goes on from: the last that was completed."""
    found = newest(folder)
    return found.folder if found else None


def _starts(folder: Path) -> list[Path]:
    return [place for place in (folder / STARTS).glob("*") if place.is_dir()]
