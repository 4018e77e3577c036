"""reasoning_gym's generated data sets: `srpo prepare reasoning-gym:chain_sum` (more than 100, github.com/open-thought).

Each is one sequence of entries, a function of its seed and settings: the first `train_rows` different questions are for
training, the next `test_rows` for testing.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from reward_fns.graders.reasoning_gym import INSTALL, PREFIX
from workflows.prepare.adapters.benchmark import Benchmark, PrepareError, Question, Row

NAME = "reasoning-gym:"
INSTRUCTION = "Think step by step, and give the final answer between <answer> and </answer>."
SETTINGS = {"train_rows": 2000, "test_rows": 200, "seed": 0}
# A small data set has fewer different questions than are asked for; so many entries without a new one end the search.
_PATIENCE = 2000


def find(name: str) -> Benchmark:
    """The benchmark `reasoning-gym:<data set>`. Raises PrepareError with the names there are."""
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise PrepareError(f"{name}: {INSTALL} ({error})") from error
    dataset = name.removeprefix(NAME)
    if dataset not in DATASETS:
        near = difflib.get_close_matches(dataset, DATASETS, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise PrepareError(f"reasoning_gym has no data set {dataset!r}.{hint} It has {', '.join(sorted(DATASETS))}")

    def generate(settings: Mapping[str, Any]) -> dict[str, list[Row]]:
        return entries(dataset, settings)

    return Benchmark(
        name=name,
        data_source=PREFIX + dataset,
        ability="reasoning",
        adapt=adapt,
        columns=("question", "answer", "metadata"),
        generate=generate,
        elsewhere=f"reasoning-gym {metadata.version('reasoning-gym')}",
    )


def entries(dataset: str, settings: Mapping[str, Any]) -> dict[str, list[Row]]:
    """`train` and `test` of a data set; settings beyond `SETTINGS` go to its own configuration."""
    import reasoning_gym

    own = {key: value for key, value in settings.items() if key not in SETTINGS}
    train, test, seed = (settings.get(key, default) for key, default in SETTINGS.items())
    for key, value in (("train_rows", train), ("test_rows", test), ("seed", seed)):
        if not isinstance(value, int) or value < (key == "train_rows"):
            raise PrepareError(f"--dataset-kwargs: {key}={value!r} must be a whole number, of rows at least one")
    try:
        source = reasoning_gym.create_dataset(dataset, size=2**31, seed=seed, **own)
    except (TypeError, ValueError, AssertionError) as error:
        raise PrepareError(f"--dataset-kwargs: reasoning_gym refuses them for {dataset}: {error}") from error
    found: dict[str, Row] = {}
    index = newest = 0
    while len(found) < train + test:
        if index - newest > _PATIENCE:
            raise PrepareError(
                f"{dataset} has {len(found)} different questions with these settings, fewer than train_rows={train} "
                f"and test_rows={test}: ask for fewer with --dataset-kwargs, or for a larger range of questions"
            )
        entry = source[index]
        if entry["question"] not in found:
            found[entry["question"]] = entry
            newest = index
        index += 1
    rows = list(found.values())
    return {"train": rows[:train], **({"test": rows[train:]} if test else {})}


def adapt(row: Row, split: str) -> Question:
    """The question with our instruction. Raises ValueError for an entry that is more than a Python literal."""
    truth = repr(dict(row))
    if ast.literal_eval(truth) != row:
        raise ValueError("the entry does not survive as text, and its scorer needs it whole")
    return Question(f"{row['question'].strip()}\n\n{INSTRUCTION}", truth)
