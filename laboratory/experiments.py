"""Which runs make up the evidence, and the rule that chooses the learning rates. Written down before the runs.

learning_rates  three rates for each main method, on seeds and on a split of held-out questions that nothing else uses
main            GRPO, SDPO and SRPO on the test split, each at its chosen rate
further_seeds   GRPO and SRPO on five more seeds (added when five had left open which is better)
ablations       variants of SDPO and SRPO, at the rate of the method they vary
teachers        SRPO and SDPO with a frozen teacher, SRPO with a slow one (added when a run of SRPO had fallen)
causes          the main methods at GRPO's rate with a verdict that wants a derivation that is true line by line
family_rates, family, family_short_rates, family_short: `laboratory.family`
reduced         what `make lab` does: the main methods at the rates found in the full laboratory, two seeds
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean

from laboratory import family as methods_of_papers
from laboratory.run import RunSpec, record_path, write_text

MAIN = ("grpo", "sdpo", "srpo")
# Each ablation inherits the learning rate of the method it varies.
ABLATIONS = {
    "srpo_routing_only": "srpo",
    "advantage_mix": "srpo",
    "sdpo_correct_only": "sdpo",
    "sdpo_incorrect_only": "sdpo",
}
RATES = (1e-4, 2e-4, 5e-4)
PUBLISHED_RATES = Path("docs/evidence/rates.json")
RATE_SEEDS, MAIN_SEEDS, FURTHER_SEEDS, ABLATION_SEEDS = (100, 101, 102), range(5), range(5, 10), range(3)
# label -> (method, overrides, seeds). Seed 7 had shown what an EMA teacher can do.
TEACHERS = {
    "srpo_frozen": ("srpo", ("srpo.teacher.kind=frozen",), (*MAIN_SEEDS, *FURTHER_SEEDS)),
    "srpo_slow_teacher": ("srpo", ("srpo.teacher.ema_rate=0.01",), FURTHER_SEEDS),
    "sdpo_frozen": ("sdpo", ("srpo.teacher.kind=frozen",), ABLATION_SEEDS),
}


def learning_rates(_: Path) -> list[RunSpec]:
    return [
        RunSpec("learning_rates", method, lr, seed, split="validation", steps=240)
        for seed in RATE_SEEDS
        for method in MAIN
        for lr in RATES
    ]


def main(folder: Path) -> list[RunSpec]:
    """Two seeds at a time, GRPO first: two processes then build two start policies, instead of waiting for one."""
    order = sorted((seed // 2, method != "grpo", seed, method) for seed in MAIN_SEEDS for method in MAIN)
    return [RunSpec("main", method, chosen_rate(folder, method), seed) for *_, seed, method in order]


def further_seeds(folder: Path) -> list[RunSpec]:
    return [
        RunSpec("further_seeds", method, chosen_rate(folder, method), seed)
        for seed in FURTHER_SEEDS
        for method in ("grpo", "srpo")
    ]


def ablations(folder: Path) -> list[RunSpec]:
    return [
        RunSpec("ablations", method, chosen_rate(folder, parent), seed)
        for seed in ABLATION_SEEDS
        for method, parent in ABLATIONS.items()
    ]


def chosen_rate(folder: Path, method: str) -> float:
    """The rate that a method has in every experiment of 480 steps; the choice is kept in `records/rates.json`."""
    searched = "learning_rates" if method in MAIN else "family_rates"
    return _best_rate(folder, method, searched, folder / "records" / "rates.json")


def short_rate(folder: Path, method: str) -> float:
    """The rate that a method has in `family_short`; the choice is kept in `records/short_rates.json`."""
    return _best_rate(folder, method, "family_short_rates", folder / "records" / "short_rates.json")


def _best_rate(folder: Path, method: str, experiment: str, kept: Path) -> float:
    """The rate whose best validation accuracy of a run, averaged over the seeds, is highest; a tie goes to the lower.

    Raises:
        FileNotFoundError: a run that the choice needs is not finished.
    """
    rates = json.loads(kept.read_text()) if kept.exists() else {}
    if method not in rates:
        scores: dict[float, list[float]] = {}
        for spec in specs_of(experiment, folder):
            path = record_path(folder, spec)
            if spec.method == method:
                if not path.exists():
                    raise FileNotFoundError(f"the learning rate of {method} is not chosen: run {experiment}.")
                scores.setdefault(spec.lr, []).append(best_accuracy(path))
        rates[method] = max(RATES, key=lambda lr: (mean(scores[lr]), -lr))
        write_text(kept, json.dumps(rates, indent=2, sort_keys=True) + "\n")
    return rates[method]


def best_accuracy(path: Path) -> float:
    """The best validation accuracy of a record after the start."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return max(line["accuracy"] for line in lines if line["kind"] == "eval" and line["step"] > 0)


def teachers(folder: Path) -> list[RunSpec]:
    """What becomes of the methods if their teacher does not follow the student, or does so slowly."""
    specs = [
        RunSpec("teachers", method, chosen_rate(folder, method), seed, overrides=overrides, label=label)
        for label, (method, overrides, seeds) in TEACHERS.items()
        for seed in seeds
    ]
    return sorted(specs, key=lambda spec: (spec.seed != 7, spec.seed))


def causes(folder: Path) -> list[RunSpec]:
    """Are lucky siblings, that is right answers with a wrong line, what holds self-distillation back?"""
    lr = chosen_rate(folder, "grpo")
    return [
        RunSpec("causes", method, lr, seed, strict=True, label=f"{method}_strict")
        for seed in ABLATION_SEEDS
        for method in MAIN
    ]


def family_rates(_: Path) -> list[RunSpec]:
    return methods_of_papers.rate_specs(RATES, RATE_SEEDS)


def family(folder: Path) -> list[RunSpec]:
    return methods_of_papers.compared(lambda method: chosen_rate(folder, method), MAIN_SEEDS, steps=480)


def family_short_rates(folder: Path) -> list[RunSpec]:
    return [spec for spec in (*learning_rates(folder), *family_rates(folder)) if spec.seed == RATE_SEEDS[0]]


def family_short(folder: Path) -> list[RunSpec]:
    return methods_of_papers.compared(lambda method: short_rate(folder, method), MAIN_SEEDS, steps=240)


def reduced(_: Path) -> list[RunSpec]:
    rates = json.loads(PUBLISHED_RATES.read_text())
    return [RunSpec("main", method, rates[method], seed) for seed in MAIN_SEEDS[:2] for method in MAIN]


EXPERIMENTS: dict[str, Callable[[Path], list[RunSpec]]] = {
    "learning_rates": learning_rates,
    "main": main,
    "further_seeds": further_seeds,
    "ablations": ablations,
    "teachers": teachers,
    "causes": causes,
    "reduced": reduced,
    "family_rates": family_rates,
    "family": family,
    "family_short_rates": family_short_rates,
    "family_short": family_short,
}


def specs_of(name: str, folder: Path) -> list[RunSpec]:
    """The runs of an experiment, most wanted first."""
    return EXPERIMENTS[name](folder)
