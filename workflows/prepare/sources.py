"""Raw rows by split, from the hub or from local files; what cannot be read says why and what to do."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from workflows.prepare.adapters import sdpo_rows
from workflows.prepare.adapters.benchmark import Benchmark, HubSplit, PrepareError, Row

SUFFIXES = (".json", ".jsonl", ".parquet")
_SPLIT_NAME = re.compile(r"(train|test)(?![a-z0-9])")


def from_hub(benchmark: Benchmark) -> dict[str, list[Row]]:
    """Loads every split with `datasets.load_dataset`."""
    if not benchmark.hub:
        raise PrepareError(f"{benchmark.name} is not on the hub: {benchmark.elsewhere}, and name them with --from")
    splits = {name: load_split(place) for name, place in benchmark.hub.items()}
    for name, rows in splits.items():
        check_columns(benchmark, rows, benchmark.hub[name].path)
    return into_splits(benchmark, splits)


def load_split(place: HubSplit) -> list[Row]:
    """One call of `load_dataset`."""
    import datasets

    files = {"data_files": place.data_files} if place.data_files else {}
    try:
        return list(datasets.load_dataset(place.path, place.config, split=place.split, **files))
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        offline = " HF_HUB_OFFLINE is set here." if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PrepareError(
            f"{place.data_files or place.path} could not be loaded from the Hugging Face hub: {reason}.{offline} Where "
            "there is no network, download the files on another machine and name them with --from"
        ) from error


def from_files(benchmark: Benchmark, path: Path, split: str | None = None) -> dict[str, list[Row]]:
    """Reads a file or a folder, in the hub's layout or in that of SDPO's repository.

    The name of a file says its split (`train...`, `test...`), unless `split` does. Where the benchmark makes its own
    splits, files in the hub's layout are taken together, whatever they are called.
    """
    files = local_files(path)
    contents = {file: read_rows(file) for file in files}
    for file, rows in contents.items():
        check_columns(benchmark, rows, str(file))
    first = next(iter(contents.values()))[0]
    if benchmark.pool and not sdpo_rows.recognised(first):
        return into_splits(benchmark, {"all": [row for rows in contents.values() for row in rows]})
    splits: dict[str, list[Row]] = {}
    for file, rows in contents.items():
        splits.setdefault(split or split_of(file), []).extend(rows)
    return splits if sdpo_rows.recognised(first) else into_splits(benchmark, splits)


def into_splits(benchmark: Benchmark, splits: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Selects the rows of the benchmark, and splits them where the source has no splits. Raises PrepareError."""
    if benchmark.select:
        splits = {name: _selected(benchmark.select, rows, name) for name, rows in splits.items()}
    for name, rows in splits.items():
        if not rows:
            raise PrepareError(f"no row of split {name} belongs to {benchmark.name}: is it another data set?")
    if benchmark.pool is None:
        return splits
    try:
        return benchmark.pool(splits["all"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PrepareError(f"{len(splits['all'])} row(s) of {benchmark.name} cannot be split: {error}") from error


def _selected(select: Callable[[Row], bool], rows: Sequence[Row], split: str) -> list[Row]:
    chosen = []
    for number, row in enumerate(rows, start=1):
        try:
            if select(row):
                chosen.append(row)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PrepareError(
                f"split {split}, row {number} cannot be read: {type(error).__name__}: {error}"
            ) from error
    return chosen


def local_files(path: Path) -> list[Path]:
    """The data files that `path` names: of a folder those in it, else those of the one folder below that has some."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise PrepareError(f"--from {path}: there is no such file or folder")
    found = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
    files = [file for file in found if file.parent == path] or found
    if not files:
        raise PrepareError(f"--from {path}: no {', '.join(SUFFIXES)} file is in it")
    if len(folders := sorted({str(file.parent) for file in files})) > 1:
        raise PrepareError(f"--from {path} holds data in several folders, name one of them: {', '.join(folders)}")
    return files


def read_rows(path: Path) -> list[Row]:
    """The rows of a JSON, JSON-lines or parquet file."""
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            rows: Any = pyarrow.parquet.read_table(path).to_pylist()
        else:
            text = path.read_text(encoding="utf-8-sig")
            rows = json.loads(text) if text.lstrip().startswith("[") else _lines(text)
    except (OSError, ValueError) as error:
        raise PrepareError(f"{path} cannot be read: {error}") from error
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise PrepareError(f"{path}: " + ("holds rows that are not objects" if rows else "holds no rows"))
    return rows


def _lines(text: str) -> list[Any]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            if line.strip():
                rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"line {number} is not a JSON object ({error})") from error
    return rows


def check_columns(benchmark: Benchmark, rows: Sequence[Row], where: str) -> None:
    """Raises PrepareError naming the columns that are missing."""
    for number, row in enumerate(rows, start=1):
        if sdpo_rows.recognised(row):
            continue
        if missing := [name for name in benchmark.columns if name not in row]:
            layout = next(iter(benchmark.hub.values())).path if benchmark.hub else "SDPO's repository"
            raise PrepareError(
                f"{where}, row {number} lacks the column(s) {', '.join(missing)}; it has {', '.join(sorted(row))}. "
                f"{benchmark.name} is read in the layout of {layout}, or with the columns "
                f"{', '.join(sdpo_rows.COLUMNS)}"
            )


def split_of(file: Path) -> str:
    """`train` or `test`, from the file's name."""
    match = _SPLIT_NAME.match(file.name)
    if match is None:
        raise PrepareError(f"{file}: is it for training or for testing? Call it train... or test..., or add --split")
    return match.group(1)
