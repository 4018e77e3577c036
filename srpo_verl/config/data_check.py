"""What is wrong with a Parquet file of prompts: what no run can use, and rows that no run will learn from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet

# Row numbers that are named per kind.
NAMED = 5


@dataclass
class FileReport:
    """Sentences without the name of the file: `problems` of all of it, `bad_rows` of the `left_out` of its rows."""

    columns: list[str] = field(default_factory=list)
    rows: int = 0
    left_out: int = 0
    problems: list[str] = field(default_factory=list)
    bad_rows: list[str] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """What a run that trains or validates on the file does about it."""
        return [f"{sentence}: they are left out" for sentence in self.bad_rows]


def check_file(
    path: str,
    *,
    prompt_key: str = "prompt",
    source_key: str = "data_source",
    columns: Mapping[str, str] | None = None,
    each_row: bool = True,
) -> FileReport:
    """Columns, their types, and each row's conversation. Reads the file once, a batch of rows at a time.

    Args:
        columns: further ones that must be there, or keys in them (`column.key`), each with the provider that reads it.
        each_row: False looks at the columns alone, and reads no row.
    """
    report = FileReport()
    try:
        with pa.parquet.ParquetFile(path) as file:
            report.columns = file.schema_arrow.names
            report.rows = file.metadata.num_rows
            report.problems = list(_columns(file.schema_arrow, prompt_key, source_key))
            for column, provider in (columns or {}).items():
                report.problems += _lacking(file.schema_arrow, column, provider)
            if report.rows == 0:
                report.problems.append("has no rows")
            if each_row and not report.problems:
                _check_rows(file, report, prompt_key, source_key)
    except (pa.lib.ArrowException, OSError, UnicodeDecodeError) as error:
        report.problems = [f"cannot be read as parquet: {error}"]
    return report


def _lacking(schema: pa.Schema, column: str, provider: str) -> list[str]:
    """Why there is no such column, or no such key in it; `column` may be `column.key`."""
    if column in schema.names:
        return []
    top, *keys = column.split(".")
    if top not in schema.names:
        return [f"lacks the column {top}, which srpo.providers={provider} reads"]
    kind = schema.field(top).type
    for key in keys:
        names = [kind.field(i).name for i in range(kind.num_fields)] if pa.types.is_struct(kind) else []
        if key not in names or pa.types.is_null(kind.field(key).type):
            return [
                f"has no {column}, which srpo.providers={provider} reads (srpo.options.{provider} may say where it "
                f"is): {top} has {', '.join(names) or 'no keys'}"
            ]
        kind = kind.field(key).type
    return []


def _columns(schema: pa.Schema, prompt_key: str, source_key: str) -> Iterator[str]:
    names = set(schema.names)
    if missing := {prompt_key, source_key, "reward_model"} - names:
        yield f"lacks the column(s) {', '.join(sorted(missing))}; it has {sorted(names)}"
        return
    prompt = schema.field(prompt_key).type
    if not _is_list(prompt) or not pa.types.is_struct(prompt.value_type):
        yield (
            f"has a column {prompt_key} of type {prompt}: it must hold a list of messages, for example "
            '[{"role": "user", "content": "2 + 2?"}]'
        )
    elif missing := {"role", "content"} - {
        prompt.value_type.field(i).name for i in range(prompt.value_type.num_fields)
    }:
        yield f"has messages without {' and '.join(sorted(missing))} in its column {prompt_key}"
    for name in ("reward_model", "extra_info"):
        if name in names and not pa.types.is_struct(schema.field(name).type):
            yield f"has a column {name} of type {schema.field(name).type}: it must hold objects"
    source = schema.field(source_key).type
    if not (pa.types.is_string(source) or pa.types.is_large_string(source) or pa.types.is_dictionary(source)):
        yield f"has a column {source_key} of type {source}: it must hold texts"


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _check_rows(file: pa.parquet.ParquetFile, report: FileReport, prompt_key: str, source_key: str) -> None:
    found: dict[str, list[int]] = {}
    columns = [prompt_key, source_key, "reward_model"]
    number = 0
    for batch in file.iter_batches(columns=columns):
        for row in batch.to_pylist():
            if problem := row_problem(row, prompt_key=prompt_key, source_key=source_key):
                found.setdefault(problem, []).append(number)
            number += 1
    for problem, numbers in found.items():
        more = ", ..." if len(numbers) > NAMED else ""
        report.left_out += len(numbers)
        named = ", ".join(map(str, numbers[:NAMED]))
        report.bad_rows.append(f"has {len(numbers)} of {number} rows {problem} (rows {named}{more})")


def row_problem(row: Mapping[str, Any], *, prompt_key: str = "prompt", source_key: str = "data_source") -> str | None:
    """What keeps a row from being trained on, as the end of "rows ...", None if nothing does."""
    messages = row[prompt_key]
    if not messages:
        return "without a prompt"
    if any(message is None or message["role"] is None or message["content"] is None for message in messages):
        return "with a message that has no role or no content"
    users = [message["content"] for message in messages if message["role"] == "user"]
    if not users:
        return "without a message of the user"
    if isinstance(users[-1], str) and not users[-1].strip():
        return "whose last message of the user is empty"
    if not row[source_key]:
        return f"without {source_key}"
    if row["reward_model"] is None or row["reward_model"].get("ground_truth") is None:
        return "without reward_model.ground_truth"
    return None
