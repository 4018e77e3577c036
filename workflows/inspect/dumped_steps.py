"""The steps that a run dumped for `srpo inspect`."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from srpo_verl.training.step.step_dump import VERSION
from workflows.run_reader import Run, read_run

SUFFIX = ".json.gz"


def find_steps(run: Run) -> dict[int, Path]:
    """{step: file}, ascending, of all starts of a run. The folder is `srpo.inspect_dir`, or `inspect` in the run's own.

    A step that a later start did again is the later one's.

    Raises:
        FileNotFoundError: the run dumps no steps, or has not dumped one yet; the message says what to set.
    """
    named, freq = run.get("srpo.inspect_dir"), int(run.get("srpo.inspect_freq", 10))
    for place in run.dump_places("srpo.inspect_dir"):
        steps = (file.name.removesuffix(SUFFIX) for file in place.glob(f"*{SUFFIX}"))
        found = {int(step): place / f"{step}{SUFFIX}" for step in steps if step.isdigit()}
        if found:
            return dict(sorted(found.items()))
    if not named:
        raise FileNotFoundError(
            f"{run.folder} dumps no steps. Start or resume it with srpo.inspect_dir={run.folder / 'inspect'} "
            "(and srpo.inspect_freq=N for every N-th step); only steps that are trained then can be looked at."
        )
    last = max((record.step for record in run.records), default=0)
    raise FileNotFoundError(
        f"{named} has no step yet: with srpo.inspect_freq={freq} the first is step {freq}, and the run is at {last}. "
        "Wait, or start it with a smaller srpo.inspect_freq. If the run was moved, put the folder into it as `inspect`."
    )


def read_step(folder: Path, step: int | None = None) -> dict[str, Any]:
    """A dumped step of the run in `folder`; by default the last one up to the run's last step.

    Raises:
        FileNotFoundError: no run, no dump, or not of this step.
        ValueError: the file is damaged or of another version.
    """
    run = read_run(folder)
    steps = find_steps(run)
    # A run that went on from an earlier checkpoint has left dumps of steps that it has thrown away.
    last = max((record.step for record in run.records), default=max(steps))
    wanted = max((found for found in steps if found <= last), default=max(steps)) if step is None else step
    if wanted not in steps:
        listed = ", ".join(map(str, list(steps)[-20:]))
        freq = run.get("srpo.inspect_freq", 10)
        raise FileNotFoundError(
            f"step {wanted} was not dumped (srpo.inspect_freq={freq}); {len(steps)} steps were, the last ones: {listed}"
        )
    path = steps[wanted]
    try:
        found = json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): remove it, and choose another step with --step") from error
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise ValueError(f"{path} is no dump of this version ({VERSION}): use the srpo_verl that trained the run")
    return found
