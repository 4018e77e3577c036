"""What `srpo train` looks at before anything starts: `srpo doctor` and `srpo plan` for this config."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from omegaconf import DictConfig
from rich.console import Console

from workflows.doctor.check import Check, Status, fail, ok, warn
from workflows.doctor.checks import run_checks
from workflows.plan.advice import advise
from workflows.plan.command import gpu_here, has_flash_attn
from workflows.plan.plan import plan_config


class ChecksFailedError(ValueError):
    """The run would not work; the message says what to change."""


def check(config: DictConfig, console: Console) -> None:
    """Prints what is worth looking at. Raises ChecksFailedError if something is wrong."""
    warnings.simplefilter("ignore")  # verl's, about engines that are not installed
    with console.status("checking") as status:
        found = run_checks(config, start_engines=False, on_check=lambda name: status.update(f"checking {name}"))
        if not any(finding.status is Status.FAIL for finding in found):  # a plan needs the model's config
            status.update("planning")
            found += check_plan(config)
    for finding in found:
        if finding.status is Status.WARN:
            mend = f" -> {finding.mend}" if finding.mend else ""
            console.print(f"warning: {finding.name}: {finding.found}{mend}", style="yellow", markup=False)
    if failed := [finding for finding in found if finding.status is Status.FAIL]:
        said = "\n".join(f"{one.name}: {one.found}" + (f"\n  -> {one.mend}" if one.mend else "") for one in failed)
        raise ChecksFailedError(f"{said}\nNothing was started (--no-checks starts it all the same)")


def check_plan(config: DictConfig) -> Iterator[Check]:
    """Whether the run fits into memory, with the changes that `srpo plan` would advise if not.

    A failure where such a plan was measured, else a warning.
    """
    try:
        gpu = None if config.trainer.device == "cpu" else gpu_here()
        plan = plan_config(config, gpu, flash_cross_entropy=has_flash_attn())
    except ValueError as error:
        yield warn("plan", f"memory and time cannot be told: {error}")
        return
    finding, doubt = (fail, "") if plan.measured else (warn, ", by formulas that were never measured on a GPU")
    misfits = plan.misfits()
    for misfit in misfits:
        yield finding("plan", misfit)
    if misfits:
        mend = " or ".join(" ".join(change.overrides) for change in advise(plan) if change.fits)
        yield finding("plan", f"the run does not fit{doubt}", mend or "see `srpo plan` for this config")
    else:
        yield ok("plan", f"about {plan.step_seconds:.0f} s per step")
