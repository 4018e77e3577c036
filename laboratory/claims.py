"""What the comparison asks, written down before its runs, and what the records answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from laboratory.results import Record
from workflows.report.intervals import Estimate, estimate

# Fewer seeds have no interval that is worth a verdict.
LEAST_SEEDS = 3


@dataclass(frozen=True)
class Claim:
    """`higher` has more of a measure than `lower` on the same seeds. The opposite falsifies it."""

    text: str
    source: str
    measure: str
    higher: str
    lower: str

    def difference(self, runs: Mapping[str, Mapping[int, Record]]) -> Estimate | None:
        """Of `higher` over `lower` at the end of the runs, paired by seed; None if no seed has both."""
        higher, lower = runs.get(self.higher, {}), runs.get(self.lower, {})
        ends = [(higher[seed].evals[-1], lower[seed].evals[-1]) for seed in sorted(higher.keys() & lower.keys())]
        # `distinct` is absent where no question has enough right answers.
        measured = [pair for pair in ends if all(self.measure in line for line in pair)]
        return estimate([one[self.measure] - other[self.measure] for one, other in measured])

    def verdict(self, runs: Mapping[str, Mapping[int, Record]]) -> str:
        """`seen` or `falsified` if the 95 % interval of the difference lies above or below 0."""
        found = self.difference(runs)
        if found is None:
            return "not run"
        if found.half_width is None or found.count < LEAST_SEEDS:
            return "too few seeds"
        if found.mean - found.half_width > 0:
            return "seen"
        return "falsified" if found.mean + found.half_width < 0 else "not settled"


CLAIMS = (
    Claim("I-SDPO ends above SRPO", "2608.12957", "accuracy", "i_sdpo", "srpo"),
    Claim("DRIFT ends above SRPO", "2606.30345", "accuracy", "drift", "srpo"),
    Claim("RLCSD ends above GRPO", "2606.11709", "accuracy", "rlcsd", "grpo"),
    Claim("the SRPO of RLCSD's code ends below GRPO", "2606.11709", "accuracy", "grpo", "srpo_sign_routed"),
    Claim("the paper's SRPO ends above that of RLCSD's code", "ours", "accuracy", "srpo", "srpo_sign_routed"),
    Claim("SC-SDPO ends above SDPO", "2605.27765", "accuracy", "sc_sdpo", "sdpo"),
    Claim("SDPO ends above an anchor to the EMA", "control", "accuracy", "sdpo", "grpo_ema_kl"),
    Claim("SRPO ends above forward KL alone", "control", "accuracy", "srpo", "srpo_alpha_0"),
    Claim("sibling demonstrations cost pass@16", "2606.26091", "pass@16", "grpo", "srpo"),
    Claim("sibling demonstrations cost diversity", "2606.26091", "distinct", "grpo", "srpo"),
    Claim("a random sibling keeps more diversity than the first", "control", "distinct", "srpo_random_sibling", "srpo"),
)
