"""Writing a prepared data set so that a half-written one is recognised: the manifest comes last."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from srpo_verl.base.files import replacing
from srpo_verl.base.lease import FolderTakenError, LeaseLostError, take
from workflows.prepare.adapters.benchmark import PrepareError

MANIFEST = "manifest.json"
_BATCH = 64  # rows per row group; a row of code tests can be megabytes


def refuse_finished(folder: Path, *, force: bool) -> None:
    """Raises PrepareError where a data set is finished already, unless `force`, or `folder` is a file."""
    if (folder / MANIFEST).exists() and not force:
        raise PrepareError(f"{folder} holds a prepared data set: name another --out, or replace it with --force")
    if folder.exists() and not folder.is_dir():
        raise PrepareError(f"--out {folder} is a file; name a folder")


@contextmanager
def folder_of_its_own(folder: Path) -> Iterator[Callable[[], None]]:
    """No other preparation writes into `folder` meanwhile; PrepareError if one does, or did and took over.

    What it gives is called before the first write. Where nothing is written, nothing is left.
    """
    writes = False

    def begin() -> None:
        nonlocal writes
        lease.check()
        writes = True

    try:
        lease = take(folder, what="preparing").keep()
    except FolderTakenError as error:
        raise PrepareError(str(error)) from error
    except OSError as error:
        raise _said(error, folder) from error
    try:
        yield begin
    except LeaseLostError as error:
        raise PrepareError(str(error)) from error
    finally:
        lease.remove()
        if not writes and not any(folder.iterdir()):
            folder.rmdir()


def check_row(row: Mapping[str, Any]) -> None:
    """Raises ValueError for a text that is no Unicode (half a surrogate pair), which no parquet file can hold."""
    json.dumps(row, ensure_ascii=False).encode()


def write(folder: Path, splits: Mapping[str, Sequence[dict[str, Any]]], manifest: dict[str, Any]) -> None:
    """Writes `<split>.parquet` and then the manifest, each under another name until it is whole.

    Splits that the manifest of an earlier preparation names and this one does not have are removed with it: they are
    not of this data set. Files of others stay.
    """
    _guarded(lambda: folder.mkdir(parents=True, exist_ok=True), folder)
    for file in _files_of(folder) - {f"{split}.parquet" for split in splits}:
        _guarded((folder / file).unlink, folder / file)
    (folder / MANIFEST).unlink(missing_ok=True)
    for split, rows in splits.items():
        write_parquet(folder / f"{split}.parquet", rows)
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    _replace(folder / MANIFEST, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """One parquet file, small row groups. The schema is that of all rows."""
    import pyarrow
    import pyarrow.parquet

    def table(start: int, schema: Any = None) -> Any:
        return pyarrow.Table.from_pylist(list(rows[start : start + _BATCH]), schema=schema)

    starts = range(0, len(rows), _BATCH)
    try:
        schema = pyarrow.unify_schemas([table(start).schema for start in starts], promote_options="permissive")
    except (ValueError, TypeError, OverflowError) as error:
        raise PrepareError(
            f"{path}: the rows have values of several types in one column, or too large: {error}"
        ) from error

    def write_to(partial: Path) -> None:
        with pyarrow.parquet.ParquetWriter(partial, schema, compression="zstd") as writer:
            for start in starts:
                writer.write_table(table(start, schema))

    _replace(path, write_to)


def _files_of(folder: Path) -> set[str]:
    """The parquet files in `folder` that its manifest names; none where it has no manifest that can be read."""
    try:
        splits = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["splits"]
        named = {str(split["file"]) for split in splits.values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
    return {file.name for file in folder.glob("*.parquet") if file.name in named}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared data set; PrepareError if there is none: it was not prepared to its end."""
    file = folder / MANIFEST
    if not file.is_file():
        raise PrepareError(f"{folder} has no {MANIFEST}: preparing it did not end. Run srpo prepare again")
    return json.loads(file.read_text(encoding="utf-8"))


def _replace(path: Path, write_to: Callable[[Path], Any]) -> None:
    def all_of_it() -> None:
        with replacing(path) as partial:
            write_to(partial)

    _guarded(all_of_it, path)


def _guarded(action: Callable[[], Any], path: Path) -> None:
    """Runs `action`; an error of the file system becomes a sentence."""
    try:
        action()
    except OSError as error:
        raise _said(error, path) from error


def _said(error: OSError, path: Path) -> PrepareError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = next(parent for parent in (path, *path.parents) if parent.exists())
        free = shutil.disk_usage(place).free / 2**20
        return PrepareError(
            f"{path} could not be written: the disk is full ({free:.0f} MiB free). Make room or name "
            "another --out, and run the command again"
        )
    return PrepareError(f"{path} could not be written: {error.strerror or error}")
