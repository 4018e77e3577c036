"""The tables of docs/comparison.md, from the records; nothing in them is typed by hand.

python -m laboratory.comparison --records runs/family/records/family --print     # of a folder of records
python -m laboratory.comparison                            # rewrite the generated parts of docs/comparison.md
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

from laboratory.claims import CLAIMS
from laboratory.family import TITLES, shown_reference
from laboratory.page import renewed
from laboratory.results import Record, by_label, read_records, with_clock
from laboratory.table_text import listed, spread, table

PAGE, RECORDS = Path("docs/comparison.md"), Path("docs/evidence/family")
MARK = "†"
NOTHING = "No run of the comparison is complete."
CLOCKS = {"step": "steps", "tokens": "tokens", "clock": "time"}
PARTS = (0.5, 1.0)


class Comparison:
    """The records of a folder; `tables` makes the page's parts by name."""

    def __init__(self, folder: Path):
        records = read_records(folder)
        with_clock(records)
        found = by_label(records)
        self.runs = {label: found[label] for label in TITLES if label in found}

    def tables(self) -> dict[str, str]:
        return {
            "unseen": self.unseen(),
            "claims": self.claims(),
            "ran": self.ran(),
            "results": self.results(),
            "budgets": self.budgets(),
        }

    def unseen(self) -> str:
        """What the records do not show, claim by claim."""
        lines = [f"- {claim.text}: {claim.verdict(self.runs)}." for claim in CLAIMS]
        missing = [line for line in lines if not line.endswith(": seen.")]
        return "\n".join(missing) or "Every claim below was seen."

    def claims(self) -> str:
        """Each claim with its difference, what would have falsified it, and the verdict."""
        rows = []
        for claim in CLAIMS:
            found = claim.difference(self.runs)
            cell, unit = "", 1.0 if claim.measure == "distinct" else 100.0
            if found is not None:
                width = "" if found.half_width is None else f" ± {unit * found.half_width:.2f}"
                cell = f"{unit * found.mean:+.2f}{width} ({found.count})"
            names = f"{TITLES[claim.higher]} - {TITLES[claim.lower]}"
            measure = "avg@16" if claim.measure == "accuracy" else claim.measure
            rows.append([claim.text, claim.source, f"{measure}: {names}", cell, claim.verdict(self.runs)])
        header = ["claim", "from", "falsified by an interval below 0 of", "difference (seeds)", "verdict"]
        return table(header, rows)

    def ran(self) -> str:
        """Which runs there are."""
        if not self.runs:
            return NOTHING
        rows = []
        for label, runs in self.runs.items():
            some = next(iter(runs.values()))
            rows.append([_title(label, some), f"{some.spec['lr']:g}", str(some.last_step), listed(runs)])
        absent = [title for label, title in TITLES.items() if label not in self.runs]
        note = f"\n\nNot run: {', '.join(absent)}." if absent else ""
        return table(["", "lr", "steps", "seeds"], rows) + note

    def results(self) -> str:
        """Mean and 95 % interval over the seeds of `ran`: the last validation, the best one, how many runs fell."""
        columns = {"accuracy": "avg@16", "pass@4": "pass@4", "pass@16": "pass@16", "maj@16": "maj@16"}
        rows = []
        for label, runs in self.runs.items():
            found = list(runs.values())
            last = [r.evals[-1] for r in found]
            distinct = [line["distinct"] for line in last if "distinct" in line]
            rows.append(
                [
                    _title(label, found[0]),
                    spread([r.best() for r in found]),
                    *(spread([line[key] for line in last]) for key in columns),
                    spread(distinct, unit=1.0) if distinct else "",
                    f"{mean(line['distinct_questions'] for line in last):.0f}",
                    f"{sum(r.fell for r in found)} of {len(found)}",
                ]
            )
        header = ["", "best avg@16", *columns.values(), "different of 4", "on questions", "fell"]
        return table(header, rows) if rows else NOTHING

    def budgets(self) -> str:
        """Best avg@16 within equal steps, tokens and time, on the seeds that every row has."""
        seeds = set.intersection(*(set(runs) for runs in self.runs.values())) if self.runs else set()
        if not seeds:
            return NOTHING if not self.runs else "No seed has all of the rows above."
        of = {label: [runs[seed] for seed in sorted(seeds)] for label, runs in self.runs.items()}
        limits = {clock: min(mean(r.evals[-1][clock] for r in found) for found in of.values()) for clock in CLOCKS}
        rows = [
            [
                _title(label, found[0]),
                *(
                    spread([r.best(part * limit, clock) for r in found])
                    for clock, limit in limits.items()
                    for part in PARTS
                ),
            ]
            for label, found in of.items()
        ]
        units = {"step": "{:.0f} steps", "tokens": "{:.0f} tokens", "clock": "{:.1f} s"}
        header = [f"{part:.0%} of {units[clock].format(limit)}" for clock, limit in limits.items() for part in PARTS]
        return f"Seeds {listed(seeds)}.\n\n" + table(["best within", *header], rows)


def _title(label: str, record: Record) -> str:
    """The row's name, marked if its teacher reads the data set's derivation."""
    return TITLES[label] + (f" {MARK}" if shown_reference(record.spec["method"], record.spec["overrides"]) else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=RECORDS, help="folder of records (default: %(default)s)")
    parser.add_argument("--print", action="store_true", help="print the tables and leave the page as it is")
    args = parser.parse_args()
    if args.records != RECORDS and not args.records.is_dir():
        parser.error(f"{args.records} is not a folder of records; make one with python -m laboratory.grid family.")
    tables = Comparison(args.records).tables()
    if args.print:
        print("\n\n".join(f"## {name}\n\n{text}" for name, text in tables.items()))
        return
    PAGE.write_text(renewed(PAGE.read_text(), tables))


if __name__ == "__main__":
    main()
