"""Which runs compare the family of methods (docs/family.md); the page is docs/comparison.md.

family_rates        three rates for each method of the family, on the seeds and the split of the main methods' choice
family              every method and control at its chosen rate: five seeds on the test split, 480 steps
family_short_rates  of the runs that choose rates, the main methods' too, those of the first seed
family_short        as `family`, at the rate chosen by these alone, 240 steps

All are seed by seed: a grid that is stopped early has complete comparisons on fewer seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from laboratory.run import RunSpec
from srpo_verl.config import FAMILY, METHODS, method_settings

COMPARED = ("grpo", "sdpo", "srpo")


@dataclass(frozen=True)
class Control:
    """A method with one setting changed; it has that method's learning rate."""

    method: str
    overrides: tuple[str, ...]
    title: str


CONTROLS = {
    "opsd_unclipped": Control("opsd", ("srpo.entry_clip=null",), "OPSD, not clipped"),
    "srpo_reference": Control("srpo", ("srpo.providers=[reference]",), "SRPO, shown the reference"),
    "srpo_alpha_0": Control("srpo", ("srpo.alpha=0",), "SRPO, alpha 0"),
    "srpo_siblings": Control("srpo", ("srpo.providers=[siblings]",), "SRPO, several siblings"),
    "srpo_random_sibling": Control("srpo", ("srpo.providers=[random_sibling]",), "SRPO, a random sibling"),
}
# The rows of the table, in its order. SDPG's KL to a reference is verl's, and not in the laboratory.
TITLES = {
    **{method: METHODS[method] for method in COMPARED},
    **FAMILY,
    "sdpg": "SDPG, without reference KL",
    **{label: control.title for label, control in CONTROLS.items()},
}


def shown_reference(method: str, overrides: Sequence[str] = ()) -> bool:
    """Whether the teacher reads the data set's own derivation: information that the other methods do not have."""
    shown = [override for override in overrides if override.startswith("srpo.providers=")]
    return "reference" in (shown[-1] if shown else method_settings(method).get("providers", ()))


def rate_specs(rates: tuple[float, ...], seeds: tuple[int, ...]) -> list[RunSpec]:
    return [
        RunSpec("family_rates", method, lr, seed, split="validation", steps=240)
        for seed in seeds
        for method in FAMILY
        for lr in rates
    ]


def compared(rate: Callable[[str], float], seeds: range, steps: int) -> list[RunSpec]:
    """Every row of the table on every seed; `rate` gives a method's learning rate."""
    specs = []
    for seed in seeds:
        specs += [RunSpec("family", method, rate(method), seed, steps=steps) for method in (*COMPARED, *FAMILY)]
        for name, control in CONTROLS.items():
            own = rate(control.method)
            specs.append(
                RunSpec("family", control.method, own, seed, steps=steps, overrides=control.overrides, label=name)
            )
    return specs
