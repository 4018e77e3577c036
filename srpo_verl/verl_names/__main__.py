"""`python -m srpo_verl.verl_names [FOLDER]`: what has changed in the installed verl, or in the package in FOLDER."""

import sys
from pathlib import Path

from srpo_verl.verl_names.check import broken
from srpo_verl.verl_names.clauses import CLAUSES

folder = Path(sys.argv[1]) if sys.argv[1:] else None
if folder is not None and not (folder / "trainer").is_dir():
    sys.exit(f"{folder} is not the folder of a package verl (it has no trainer/)")
found = broken(folder)
print(*found or [f"all {len(CLAUSES)} clauses hold"], sep="\n")
sys.exit(bool(found))
