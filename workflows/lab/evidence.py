"""The tables and figures of docs/evidence.md, from the records; nothing in them is typed by hand.

    python -m workflows.lab.evidence --publish runs/lab-full      # take its records into docs/evidence, renew the page
    python -m workflows.lab.evidence                       # rewrite the generated parts of docs/evidence.md
    python -m workflows.lab.evidence --records runs/lab/records --print      # the tables of another folder

The page holds markers `<!-- NAME -->` ... `<!-- end NAME -->`; what stands between them is replaced.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from workflows.lab.experiments import ABLATIONS, MAIN, RATES
from workflows.lab.results import Record, by_label, interval, read_records, with_clock

PAGE, RECORDS = Path("docs/evidence.md"), Path("docs/evidence")
NAMES = {
    "grpo": "GRPO",
    "sdpo": "SDPO",
    "srpo": "SRPO",
    "srpo_routing_only": "SRPO, routing only",
    "advantage_mix": "Advantage Mix",
    "sdpo_correct_only": "SDPO, correct only",
    "sdpo_incorrect_only": "SDPO, incorrect only",
    "grpo_strict": "GRPO, strict verdict",
    "sdpo_strict": "SDPO, strict verdict",
    "srpo_strict": "SRPO, strict verdict",
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

    def start(self) -> str:
        """What the start policies can do, by seed."""
        paths = sorted((self.folder / "start").glob("*.json"), key=lambda path: int(path.stem))
        found = {path.stem: json.loads(path.read_text()) for path in paths}
        if not found:
            return "No start policy yet."
        columns = {
            "accuracy_t1": "T = 1",
            "accuracy_t06": "T = 0.6",
            "mixed_groups": "mixed groups of 8",
            "lucky_share": "right answers with a wrong line",
            "same_questions_without_sibling": "questions with a right sibling: alone",
            "same_questions_with_sibling": "shown it",
            "p_right_at_first_wrong": "P(right) at the first wrong result: alone",
            "p_right_at_first_wrong_with_sibling": "shown a sibling",
        }
        rows = [[seed, *(_number(values[key]) for key in columns)] for seed, values in found.items()]
        return _table(["seed", *columns.values()], rows)

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
                cell = f"{_percent(mean(r.best() for r in found))} / {_percent(mean(r.final for r in found))}"
                row.append((f"**{cell}**" if chosen.get(method) == lr else cell) if found else "")
            rows.append(row)
        seeds = sorted({r.seed for r in runs})
        note = f"Best / final avg@16 in %, mean of seeds {', '.join(map(str, seeds))}; the chosen rate in bold."
        return _table(["", *(f"{lr:g}" for lr in RATES)], rows) + f"\n\n{note}"

    def main(self) -> str:
        """Best, final and what the runs looked like, mean and 95 % interval over seeds."""
        rows = []
        for label, runs in self._ordered():
            found = list(runs.values())
            rows.append(
                [
                    NAMES[label],
                    f"{found[0].spec['lr']:g}",
                    _listed(runs),
                    _spread([r.at(0) for r in found]),
                    _spread([r.best() for r in found]),
                    _spread([r.final for r in found]),
                    _spread([r.evals[-1]["strict"] for r in found]),
                ]
            )
        header = ["", "lr", "seeds", "start", "best", "final", "final, every line right"]
        return _table(header, rows) if rows else "No run yet."

    def paired(self) -> str:
        """Differences between methods on the same seeds."""
        measures: dict[str, Callable[[Record], float]] = {
            "best": lambda r: r.best(),
            "final": lambda r: r.final,
            "area under the curve": lambda r: mean(line["accuracy"] for line in r.evals[1:]),
        }
        pairs = [*PAIRS, *((label, parent) for label, parent in ABLATIONS.items())]
        rows = []
        every = {label: {**self.runs.get(label, {}), **runs} for label, runs in self.further.items()}
        sets = [(self.runs, *pair) for pair in pairs] + ([(every, "srpo", "grpo")] if every else [])
        for runs, one, other in sets:
            seeds = sorted(runs.get(one, {}).keys() & runs.get(other, {}).keys())
            if seeds:
                row = [f"{NAMES[one]} - {NAMES[other]}", _listed(seeds)]
                for measure in measures.values():
                    row.append(_spread([measure(runs[one][s]) - measure(runs[other][s]) for s in seeds], sign=True))
                rows.append(row)
        return _table(["", "seeds", *measures], rows) if rows else "No run yet."

    def budgets(self) -> str:
        """Best avg@16 within equal steps, CPU time and tokens."""
        complete = [label for label, _ in self._ordered() if label in MAIN]
        if len(complete) < len(MAIN):
            return "No run yet."
        seeds = sorted(set.intersection(*(set(self.runs[label]) for label in complete)))
        tables = [f"On the seeds that all three have: {_listed(seeds)}."]
        for clock, name in (("clock", "CPU time"), ("tokens", "tokens"), ("step", "steps")):
            ends = {label: mean(self.runs[label][s].evals[-1][clock] for s in seeds) for label in complete}
            limit = min(ends.values())
            rows = []
            for label in complete:
                runs = [self.runs[label][seed] for seed in seeds]
                cells = [_spread([r.best(part * limit, clock) for r in runs]) for part in BUDGETS]
                rows.append([NAMES[label], *cells])
            unit = {"clock": f"{limit:.0f} s", "tokens": f"{limit / 1e6:.2f} M", "step": f"{limit:.0f}"}[clock]
            header = [f"equal {name}: best within", *(f"{part:.0%} of {unit}" for part in BUDGETS)]
            tables.append(_table(header, rows))
        return "\n\n".join(tables)

    def dynamics(self) -> str:
        """What the runs did inside: first and last window of steps."""
        columns = {
            "srpo/routed_share": "routed share",
            "actor/entropy": "student entropy",
            "srpo/teacher_entropy": "teacher entropy",
            "srpo/weight/std": "weights' std",
            "lucky_demonstrations": "lucky demonstrations",
            "srpo/grad_norm/grpo": "gradient, GRPO branch",
            "srpo/grad_norm/sdpo": "gradient, SDPO branch",
            "response_length": "length",
        }
        rows = []
        for label, runs in self._ordered():
            row = [NAMES[label]]
            for key in columns:
                ends = [_mean_of([r.train[place].get(key) for r in runs.values()]) for place in (0, -1)]
                row.append("" if None in ends else f"{ends[0]:.3g} → {ends[1]:.3g}")
            rows.append(row)
        return _table(["first → last window of steps", *columns.values()], rows) if rows else "No run yet."

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
        return _table(header, rows) if rows else "No run yet."

    def through_verl(self) -> str:
        """Validation of the same start policies, trained by the twin and by verl."""
        rows = []
        for path in sorted((self.folder / "through_verl" / "lab").glob("*.jsonl")):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            method, seed = lines[0]["method"], lines[0]["seed"]
            twin = self.runs.get(method, {}).get(seed)
            for line in lines:
                if line["kind"] == "eval" and twin and any(e["step"] == line["step"] for e in twin.evals):
                    ours = _percent(twin.at(line["step"]))
                    rows.append([NAMES[method], str(seed), str(line["step"]), ours, _percent(line["accuracy"])])
        return _table(["", "seed", "step", "twin", "verl"], rows) if rows else "Not run for this page."

    def smollm2(self) -> str:
        """SmolLM2-135M through verl: validation by step, mean over seeds, and what a step costs."""
        runs: dict[str, list[list[dict[str, Any]]]] = {}
        for path in sorted((self.folder / "through_verl" / "smollm2").glob("*.jsonl")):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            runs.setdefault(lines[0]["method"], []).append(lines)
        if not runs:
            return "Not run for this page."
        validated = [{line["step"] for line in _of(run, "eval")} for found in runs.values() for run in found]
        steps = sorted(set.intersection(*validated))
        rows = []
        for method in (method for method in MAIN if method in runs):
            found = runs[method]
            row = [NAMES[method], f"{found[0][0]['lr']:g}", _listed(run[0]["seed"] for run in found)]
            for step in steps:
                at = [line["accuracy"] for run in found for line in _of(run, "eval") if line["step"] == step]
                row.append(" / ".join(_percent(value) for value in at))
            trained = [line for run in found for line in _of(run, "train")]
            row.append(f"{median(line['timing_s/step'] for line in trained):.1f}")
            row.append(f"{mean(line.get('srpo/routed_share', 0.0) for line in trained):.2f}")
            rows.append(row)
        names = [f"step {step}" for step in steps]
        return _table(["", "lr", "seeds", *names, "seconds per step (median)", "routed share"], rows)

    def _ordered(self) -> list[tuple[str, dict[int, Record]]]:
        return [(label, self.runs[label]) for label in NAMES if label in self.runs]


TABLES = ("start", "rates", "main", "paired", "budgets", "dynamics", "cost", "through_verl", "smollm2")


def fill(page: str, evidence: Evidence) -> str:
    """The page with every generated part renewed. Raises ValueError if a marker is missing."""
    for name in TABLES:
        if not re.search(rf"<!-- {name} -->\n.*<!-- end {name} -->", page, re.DOTALL):
            raise ValueError(f"the page has no markers <!-- {name} --> ... <!-- end {name} -->.")
        text = getattr(evidence, name)()
        before, _, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- end {name} -->")
        page = f"{before}<!-- {name} -->\n{text}\n{end}{after}"
    return page


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _of(record: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [line for line in record if line["kind"] == kind]


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(str(seed) for seed in sorted(seeds))


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _number(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _spread(values: Sequence[float], *, sign: bool = False) -> str:
    middle, half = interval([100 * value for value in values])
    text = f"{middle:+.1f}" if sign else f"{middle:.1f}"
    return text if half != half else f"{text} ± {half:.1f}"


def _mean_of(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return mean(present) if present else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=RECORDS, help="folder of records (default: %(default)s)")
    parser.add_argument("--print", action="store_true", help="print the tables and leave the page as it is")
    parser.add_argument("--publish", type=Path, metavar="FOLDER", help="first copy the records of this folder to docs")
    args = parser.parse_args()
    if args.publish:
        shutil.copytree(
            args.publish / "records", RECORDS, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.lock", "*.part")
        )
    evidence = Evidence(args.records)
    if args.print:
        print("\n\n".join(getattr(evidence, name)() for name in TABLES))
        return
    from workflows.lab.figures import draw

    PAGE.write_text(fill(PAGE.read_text(), evidence))
    draw(evidence, args.records)


if __name__ == "__main__":
    main()
