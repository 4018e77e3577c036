"""What `srpo train` looks at before anything starts: `srpo doctor` and `srpo plan` for this config."""

from __future__ import annotations

import warnings

from omegaconf import DictConfig
from rich.console import Console

from workflows.doctor.check import Status
from workflows.doctor.checks import run_checks


class ChecksFailedError(ValueError):
    """The run would not work; the message says what to change."""


def check(config: DictConfig, console: Console) -> None:
    """Prints what is worth looking at. Raises ChecksFailedError if something is wrong."""
    warnings.simplefilter("ignore")  # verl's, about engines that are not installed
    with console.status("checking") as status:
        found = run_checks(config, start_engines=False, on_check=lambda name: status.update(f"checking {name}"))
    for finding in found:
        if finding.status is Status.WARN:
            mend = f" -> {finding.mend}" if finding.mend else ""
            console.print(f"warning: {finding.name}: {finding.found}{mend}", style="yellow", markup=False)
    if failed := [finding for finding in found if finding.status is Status.FAIL]:
        said = "\n".join(f"{one.name}: {one.found}" + (f"\n  -> {one.mend}" if one.mend else "") for one in failed)
        raise ChecksFailedError(f"{said}\nNothing was started (--no-checks starts it all the same)")
