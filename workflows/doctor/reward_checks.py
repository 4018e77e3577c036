"""The reward function of a run, asked once for each data source: a run would find its faults after minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from reward_fns.registry import UnknownDataSource
from reward_fns.result import BadSettings
from srpo_verl.core import turns_of, turns_to_json
from workflows.doctor.check import Check, fail, ok, warn
from workflows.doctor.config_checks import usable_files
from workflows.reward_call import DEFAULT, ask, load_reward

# Rows of a data source that are tried until one gets a verdict: the gold answer of the first may be of no use.
TRIED = 3
_ANSWER = "0"
# What verl and our agent loop tell beside a row.
_ROLLOUT = {"num_turns": 2, "srpo_turns": turns_to_json(turns_of([{"role": "assistant", "content": _ANSWER}]))}
_FUNCTION = "reward.custom_reward_function"


@dataclass
class _Source:
    """Rows of one data source: how many, and the first of them."""

    count: int = 0
    first: list[dict[str, Any]] = field(default_factory=list)


def check_reward(config: DictConfig) -> Iterator[Check]:
    """Each data source of the local files has a grader, which gives a verdict with the run's `reward_kwargs`.

    A function other than `reward_fns` is warned of only: verl tells it more than is known before a run.
    """
    named = config.reward.custom_reward_function
    if config.reward.reward_model.enable or named.path is None:
        return
    kwargs = OmegaConf.to_container(named.reward_kwargs) if named.get("reward_kwargs") else {}
    assert isinstance(kwargs, dict)
    try:
        reward = load_reward(named.path, named.name, {str(key): value for key, value in kwargs.items()})
    except ValueError as error:
        yield fail("rewards", f"{_FUNCTION}: {error}", f"{_FUNCTION}.path and .name; see docs/rewards.md")
        return
    finding = fail if named.path == DEFAULT else warn
    for source, rows in sorted(_sources(config).items()):
        if not rows.first:
            continue  # without a gold answer: the preflight's to say
        if problem := _problem(reward, source, rows, config.srpo.score_range):
            yield finding("rewards", f"data source {source!r} ({rows.count} rows): {problem}")
        else:
            yield ok("rewards", f"data source {source!r}: {rows.count} rows, {_grader(named, source)} gives a verdict")


def _problem(reward: Callable[..., Any], source: str, rows: _Source, allowed: Sequence[float] | None) -> str:
    """Why the first rows get no verdict that a run can use; "" if one of them does."""
    why = ""
    for row in rows.first:
        extra = {**(row.get("extra_info") or {}), **_ROLLOUT}
        gold = row["reward_model"]["ground_truth"]
        try:
            why = ask(reward, source=source, answer=_ANSWER, gold=gold, extra=extra, allowed=allowed).why
        except (BadSettings, UnknownDataSource) as error:
            why = f"{type(error).__name__}: {error}"
        if not why:
            return ""
    return f"the answer {_ANSWER!r} to its row gets no verdict: {why}"


def _grader(named: DictConfig, source: str) -> str:
    if named.path != DEFAULT:
        return f"{named.path}:{named.name}"
    from reward_fns import registry

    return registry.place(source)


def _sources(config: DictConfig) -> dict[str, _Source]:
    """By name, over the local Parquet files that a run could read."""
    import pyarrow.parquet

    found: dict[str, _Source] = {}
    key = config.data.reward_fn_key
    for _, path, _ in usable_files(config):
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = {key, "reward_model", "extra_info"} & set(file.schema_arrow.names)
            _gather(found, file, key, sorted(columns))
    return found


def _gather(found: dict[str, _Source], file: Any, key: str, columns: list[str]) -> None:
    """Counts the rows of each source, and reads the first of them alone: tests of programs may be gigabytes."""
    wanted: list[int] = []
    number = 0
    for batch in file.iter_batches(columns=[key]):
        for source in batch.column(key).to_pylist():
            if source:  # other rows are left out
                rows = found.setdefault(str(source), _Source())
                rows.count += 1
                if rows.count <= TRIED:
                    wanted.append(number)
            number += 1
    begin = 0
    for batch in file.iter_batches(batch_size=16, columns=columns) if wanted else ():
        while wanted and wanted[0] < begin + batch.num_rows:
            (row,) = batch.slice(wanted.pop(0) - begin, 1).to_pylist()
            if (row["reward_model"] or {}).get("ground_truth") is not None:
                found[str(row[key])].first.append(row)
        begin += batch.num_rows
        if not wanted:
            return
