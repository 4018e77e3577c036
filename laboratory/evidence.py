"""The tables and figures of docs/evidence.md, from the records; nothing in them is typed by hand.

    python -m laboratory.evidence --publish runs/lab-full      # take its records into docs/evidence, renew the page
    python -m laboratory.evidence                       # rewrite the generated parts of docs/evidence.md
    python -m laboratory.evidence --records runs/lab/records --print      # the tables of another folder

The page holds markers `<!-- NAME -->` ... `<!-- end NAME -->`; what stands between them is replaced.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from laboratory.page import renewed
from laboratory.tables import Evidence

PAGE, RECORDS = Path("docs/evidence.md"), Path("docs/evidence")
TABLES = (
    "start",
    "rates",
    "main",
    "paired",
    "budgets",
    "dynamics",
    "reading",
    "falls",
    "teachers",
    "cost",
    "through_verl",
    "smollm2",
)


def fill(page: str, evidence: Evidence) -> str:
    """The page with every generated part renewed. Raises ValueError if a marker is missing."""
    return renewed(page, {name: getattr(evidence, name)() for name in TABLES})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=RECORDS, help="folder of records (default: %(default)s)")
    parser.add_argument("--print", action="store_true", help="print the tables and leave the page as it is")
    parser.add_argument("--publish", type=Path, metavar="FOLDER", help="first copy the records of this folder to docs")
    args = parser.parse_args()
    wanted = args.publish / "records" if args.publish else args.records
    if not wanted.is_dir():
        parser.error(f"{wanted} is not a folder of records; make one with python -m laboratory.grid.")
    if args.publish:
        shutil.copytree(wanted, RECORDS, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.lock", "*.part"))
    evidence = Evidence(args.records)
    if args.print:
        print("\n\n".join(f"## {name}\n\n{getattr(evidence, name)()}" for name in TABLES))
        return
    from laboratory.figures import draw

    PAGE.write_text(fill(PAGE.read_text(), evidence))
    draw(evidence, args.records)


if __name__ == "__main__":
    main()
