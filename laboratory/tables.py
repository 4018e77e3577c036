"""The tables of docs/evidence.md: each method of `Evidence` is one, made from the records of a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any

from laboratory.experiments import ABLATIONS, MAIN, RATES, TEACHERS
from laboratory.results import Record, by_label, read_records, with_clock
from laboratory.table_text import listed, mean_of, number, of_kind, percent, spread, table
from srpo_verl.config import METHODS

NAMES = {
    **METHODS,
    "grpo_strict": "GRPO, strict verdict",
    "sdpo_strict": "SDPO, strict verdict",
    "srpo_strict": "SRPO, strict verdict",
    "srpo_frozen": "SRPO, frozen teacher",
    "srpo_slow_teacher": "SRPO, EMA rate 0.01",
    "sdpo_frozen": "SDPO, frozen teacher",
}
BUDGETS = (0.1, 0.25, 0.5, 1.0)
PAIRS = (("srpo", "grpo"), ("srpo", "sdpo"), ("sdpo", "grpo"))
EXPERIMENTS_SHOWN = ("main", "ablations", "causes")


class Evidence:
    """The records of a folder and one method per table."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.records = [record for name in EXPERIMENTS_SHOWN for record in read_records(folder / name)]
        with_clock(self.records)
        self.runs = by_label(self.records)
        self.further = by_label(read_records(folder / "further_seeds"))
        self.teacher_runs = by_label(read_records(folder / "teachers"))
        # label -> seed -> record, of everything that is compared.
        self.every: dict[str, dict[int, Record]] = {}
        for found in (self.runs, self.further, self.teacher_runs):
            for label, runs in found.items():
                self.every.setdefault(label, {}).update(runs)

    def start(self) -> str:
        """What the start policies can do, by seed."""
        paths = sorted((self.folder / "start").glob("*.json"), key=lambda path: int(path.stem))
        found = {path.stem: json.loads(path.read_text()) for path in paths}
        if not found:
            return "No start policy yet."
        alone = {
            "accuracy_t1": "T = 1",
            "accuracy_t06": "T = 0.6",
            "mixed_groups": "mixed groups of 8",
            "lucky_share": "right answers without a true derivation",
        }
        shown = {
            "same_questions_without_sibling": "questions with a right sibling: alone",
            "same_questions_with_sibling": "shown it",
            "p_right_at_first_wrong": "P(right) at the first wrong result: alone",
            "p_right_at_first_wrong_with_sibling": "shown a sibling",
        }
        tables = []
        for columns in (alone, shown):
            rows = [[seed, *(number(values[key]) for key in columns)] for seed, values in found.items()]
            tables.append(table(["seed", *columns.values()], rows))
        return "\n\n".join(tables)

    def rates(self) -> str:
        """Best and final validation accuracy by learning rate, mean over seeds, and the choice."""
        runs = read_records(self.folder / "learning_rates")
        if not runs:
            return "No learning rate yet."
        kept = self.folder / "rates.json"
        chosen = json.loads(kept.read_text()) if kept.exists() else {}
        rows = []
        for method in MAIN:
            row = [NAMES[method]]
            for lr in RATES:
                found = [r for r in runs if r.spec["method"] == method and r.spec["lr"] == lr]
                cell = f"{percent(mean(r.best() for r in found))} / {percent(mean(r.final for r in found))}"
                row.append((f"**{cell}**" if chosen.get(method) == lr else cell) if found else "")
            rows.append(row)
        seeds = sorted({r.seed for r in runs})
        note = f"Best / final avg@16 in %, mean of seeds {', '.join(map(str, seeds))}; the chosen rate in bold."
        return table(["", *(f"{lr:g}" for lr in RATES)], rows) + f"\n\n{note}"

    def main(self) -> str:
        """Best, final and what the runs looked like, mean and 95 % interval over seeds."""
        rows = []
        for label, runs in self._ordered():
            found = list(runs.values())
            rows.append(
                [
                    NAMES[label],
                    f"{found[0].spec['lr']:g}",
                    listed(runs),
                    spread([r.at(0) for r in found]),
                    spread([r.best() for r in found]),
                    spread([r.final for r in found]),
                    spread([r.evals[-1]["strict"] for r in found]),
                    spread([r.evals[-1]["form"] for r in found]),
                ]
            )
        header = ["", "lr", "seeds", "start", "best", "final", "final, by a true derivation", "final, form kept"]
        return table(header, rows) if rows else "No run yet."

    def paired(self) -> str:
        """Differences between methods on the same seeds."""
        pairs = [*PAIRS, *ABLATIONS.items(), ("srpo_strict", "grpo_strict")]
        sets = [(self.runs, *pair) for pair in pairs] + ([(self.every, "srpo", "grpo")] if self.further else [])
        rows = [row for runs, one, other in sets for row in _differences(runs, one, other)]
        return table(["", "seeds", *MEASURES], rows) if rows else "No run yet."

    def teachers(self) -> str:
        """SRPO and SDPO with other teachers: differences on the same seeds, and which runs fell."""
        rows = []
        pairs = [(label, method) for label, (method, *_) in TEACHERS.items()]
        for one, other in [*pairs, ("srpo_frozen", "grpo")]:
            for row in _differences(self.every, one, other):
                seeds = sorted(self.every[one].keys() & self.every[other].keys())
                fell = [listed(s for s in seeds if self.every[name][s].fell) or "none" for name in (one, other)]
                higher = sum(self.every[one][s].final > self.every[other][s].final for s in seeds)
                rows.append([*row, f"{higher} of {len(seeds)}", *fell])
        header = ["", "seeds", *MEASURES, "ends higher on", "fell: the first", "the second"]
        return table(header, rows) if rows else "No run yet."

    def reading(self) -> str:
        """What the teacher (the policy itself, where there is none) answers when it is shown a true derivation."""
        columns = {"shown_accuracy": "right", "shown_form": "form kept"}
        rows = []
        for label, found in self._ordered(self.every):
            runs = list(found.values())
            row = [NAMES[label], listed(found)]
            for key in columns:
                ends = [percent(mean(r.evals[place][key] for r in runs)) for place in (0, -1)]
                row.append(f"{ends[0]} → {ends[1]} (least {percent(min(r.evals[-1][key] for r in runs))})")
            gains = [mean_of([r.train[place].get("srpo/teacher_gain") for r in runs]) for place in (0, -1)]
            left = sum("srpo/teacher_gain" in r.train[-1] for r in runs)
            note = "" if left == len(runs) else f" ({left} of {len(runs)} runs)"
            row.append("" if None in gains else f"{gains[0]:.3f} → {gains[1]:.3f}{note}")
            row.append(percent(min(r.evals[-1]["form"] for r in runs)))
            rows.append(row)
        header = ["start → end", "seeds", *columns.values(), "teacher's gain, nats", "students' own form, least"]
        return table(header, rows) if rows else "No run yet."

    def falls(self) -> str:
        """Runs that end far below their best: what went first."""
        rows = []
        for label, found in self._ordered(self.every):
            for seed, record in sorted(found.items()):
                if not record.fell:
                    continue
                peak = max(record.evals, key=lambda line: line["accuracy"])
                lost = [record.lost_at(form) for form in ("shown_form", "form")]
                rows.append(
                    [
                        NAMES[label],
                        str(seed),
                        f"{percent(peak['accuracy'])} at {peak['step']}",
                        percent(record.final),
                        *("" if step is None else str(step) for step in lost),
                        percent(record.evals[-1]["form"]),
                    ]
                )
        header = ["", "seed", "best", "final", "teacher's form lost", "student's form lost", "final form"]
        return table(header, rows) if rows else "No run fell."

    def budgets(self) -> str:
        """Best avg@16 within equal steps, CPU time and tokens."""
        complete = [label for label, _ in self._ordered() if label in MAIN]
        if len(complete) < len(MAIN):
            return "No run yet."
        seeds = sorted(set.intersection(*(set(self.runs[label]) for label in complete)))
        tables = [f"On the seeds that all three have: {listed(seeds)}."]
        for clock, name in (("clock", "CPU time"), ("tokens", "tokens"), ("step", "steps")):
            ends = {label: mean(self.runs[label][s].evals[-1][clock] for s in seeds) for label in complete}
            limit = min(ends.values())
            rows = []
            for label in complete:
                runs = [self.runs[label][seed] for seed in seeds]
                cells = [spread([r.best(part * limit, clock) for r in runs]) for part in BUDGETS]
                rows.append([NAMES[label], *cells])
            unit = {"clock": f"{limit:.0f} s", "tokens": f"{limit / 1e6:.2f} M", "step": f"{limit:.0f}"}[clock]
            header = [f"equal {name}: best within", *(f"{part:.0%} of {unit}" for part in BUDGETS)]
            tables.append(table(header, rows))
        return "\n\n".join(tables)

    def dynamics(self) -> str:
        """What the runs did inside: first and last window of steps."""
        routing = {
            "srpo/routed_share": "routed share",
            "lucky_demonstrations": "lucky demonstrations",
            "actor/entropy": "student entropy",
            "srpo/teacher_entropy": "teacher entropy",
        }
        branches = {
            "srpo/weight/std": "weights' std",
            "srpo/grad_norm/grpo": "gradient, GRPO branch",
            "srpo/grad_norm/sdpo": "gradient, SDPO branch",
            "response_length": "length",
        }
        shown = self._ordered(self.runs | {label: self.every[label] for label in self.teacher_runs})
        if not shown:
            return "No run yet."
        tables = []
        for columns in (routing, branches):
            rows = []
            for label, runs in shown:
                row = [NAMES[label], listed(runs)]
                for key in columns:
                    ends = [mean_of([r.train[place].get(key) for r in runs.values()]) for place in (0, -1)]
                    row.append("" if None in ends else f"{ends[0]:.3g} → {ends[1]:.3g}")
                rows.append(row)
            tables.append(table(["first → last window of steps", "seeds", *columns.values()], rows))
        return "\n\n".join(tables)

    def cost(self) -> str:
        """CPU seconds and tokens per step."""
        rows = []
        for label, runs in self._ordered():
            windows = [line for r in runs.values() for line in r.train]
            steps = next(iter(runs.values())).last_step
            last = [r.evals[-1] for r in runs.values()]
            pace = last[0]["clock"] / steps
            rows.append(
                [
                    NAMES[label],
                    f"{pace:.3f}",
                    f"{mean(line['teacher_seconds'] / line['seconds'] for line in windows):.0%}",
                    f"{mean(line['sampled_tokens'] for line in last) / steps:.0f}",
                    f"{mean(line['teacher_tokens'] for line in last) / steps:.0f}",
                ]
            )
        header = [
            "",
            "CPU seconds per step (median)",
            "teacher's share",
            "tokens sampled per step",
            "read by the teacher",
        ]
        return table(header, rows) if rows else "No run yet."

    def through_verl(self) -> str:
        """Validation of the same start policies, trained by the twin and by verl."""
        rows = []
        for path in sorted((self.folder / "through_verl" / "lab").glob("*.jsonl")):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            method, seed = lines[0]["method"], lines[0]["seed"]
            twin = self.runs.get(method, {}).get(seed)
            for line in lines:
                if line["kind"] == "eval" and twin and any(e["step"] == line["step"] for e in twin.evals):
                    ours = percent(twin.at(line["step"]))
                    rows.append([NAMES[method], str(seed), str(line["step"]), ours, percent(line["accuracy"])])
        return table(["", "seed", "step", "twin", "verl"], rows) if rows else "Not run for this page."

    def smollm2(self) -> str:
        """SmolLM2-135M through verl: validation by step, mean over seeds, and what a step costs."""
        runs: dict[str, list[list[dict[str, Any]]]] = {}
        for path in sorted((self.folder / "through_verl" / "smollm2").glob("*.jsonl")):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            runs.setdefault(lines[0]["method"], []).append(lines)
        if not runs:
            return "Not run for this page."
        validated = [{line["step"] for line in of_kind(run, "eval")} for found in runs.values() for run in found]
        steps = sorted(set.intersection(*validated))
        rows = []
        for method in (method for method in MAIN if method in runs):
            found = runs[method]
            row = [NAMES[method], f"{found[0][0]['lr']:g}", listed(run[0]["seed"] for run in found)]
            for step in steps:
                at = [line["accuracy"] for run in found for line in of_kind(run, "eval") if line["step"] == step]
                row.append(" / ".join(percent(value) for value in at))
            trained = [line for run in found for line in of_kind(run, "train")]
            row.append(f"{median(line['timing_s/step'] for line in trained):.1f}")
            row.append(f"{mean(line.get('srpo/routed_share', 0.0) for line in trained):.2f}")
            half = max(line["step"] for line in trained) / 2
            said = [line["says_correct"] for line in trained if line["step"] > half and "says_correct" in line]
            row.append(percent(mean(said)) if said else "")
            rows.append(row)
        names = [f"step {step}" for step in steps]
        header = [
            "",
            "lr",
            "seeds",
            *names,
            "seconds per step (median)",
            "routed share",
            'say "correct", second half, %',
        ]
        return table(header, rows)

    def _ordered(self, runs: dict[str, dict[int, Record]] | None = None) -> list[tuple[str, dict[int, Record]]]:
        runs = self.runs if runs is None else runs
        return [(label, runs[label]) for label in NAMES if label in runs]


MEASURES: dict[str, Callable[[Record], float]] = {
    "best": lambda r: r.best(),
    "final": lambda r: r.final,
    "area under the curve": lambda r: mean(line["accuracy"] for line in r.evals[1:]),
}


def _differences(runs: dict[str, dict[int, Record]], one: str, other: str) -> list[list[str]]:
    """One row of paired differences, or none if no seed has both."""
    seeds = sorted(runs.get(one, {}).keys() & runs.get(other, {}).keys())
    if not seeds:
        return []
    cells = [spread([f(runs[one][s]) - f(runs[other][s]) for s in seeds], sign=True) for f in MEASURES.values()]
    return [[f"{NAMES[one]} - {NAMES[other]}", listed(seeds), *cells]]
