"""Every benchmark from rows in its hub's layout, through `load_dataset`, to parquet that verl and the graders take."""

from __future__ import annotations

import dataclasses
import json

import pandas as pd
import pytest

from reward_fns import compute_score
from reward_fns import registry as graders
from tests.workflows.prepare import hub_rows
from workflows.prepare import registry
from workflows.prepare.adapters import maths, programs, sciknoweval, sdpo_rows
from workflows.prepare.adapters.benchmark import HubSplit, PrepareError
from workflows.prepare.pipeline import prepare


@pytest.fixture
def local_hub(tmp_path, monkeypatch):
    """Every hub path replaced by a local folder with rows in its layout; `load_dataset` reads both alike."""
    benchmarks = {}
    for name, benchmark in registry.BUILTIN.items():
        if benchmark.hub:
            folder = hub_rows.write_hub_folder(tmp_path / "hub" / name, name)
            hub = {ours: HubSplit(str(folder), place.split) for ours, place in benchmark.hub.items()}
            benchmark = dataclasses.replace(benchmark, hub=hub)
        benchmarks[name] = benchmark
    monkeypatch.setattr(registry, "BUILTIN", benchmarks)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", hub_rows.LAYOUTS)
def test_hub_rows_become_verl_rows_that_their_grader_accepts(name, local_hub, tmp_path):
    reports = prepare(name, tmp_path / "out")
    assert set(reports) == set(registry.BUILTIN[name].published)
    for split, report in reports.items():
        assert not report.bad
        frame = pd.read_parquet(tmp_path / "out" / f"{split}.parquet")
        assert len(frame) == report.rows > 0
        assert list(frame.columns) == ["data_source", "prompt", "ability", "reward_model", "extra_info"]
        row = frame.iloc[0]
        assert graders.find(row["data_source"]).builtin
        assert row["prompt"][-1]["role"] == "user"
        assert row["reward_model"]["style"] == "rule"
        assert isinstance(row["reward_model"]["ground_truth"], str)
        assert row["extra_info"]["split"] == split


def test_every_benchmark_with_a_hub_is_tested():
    assert {name for name, benchmark in registry.BUILTIN.items() if benchmark.hub} == set(hub_rows.LAYOUTS)


def test_sciknoweval_selects_level_type_and_domain(tmp_path):
    rows = [
        *hub_rows.sciknoweval(20),
        *hub_rows.sciknoweval(3, domain="Physics"),
        *hub_rows.sciknoweval(3, type="open-ended-qa"),
        *hub_rows.sciknoweval(3, details={"level": "L2"}),
    ]
    (tmp_path / "all.json").write_text(json.dumps(rows))
    reports = prepare("chemistry", tmp_path / "out", source=tmp_path / "all.json")
    assert {split: report.rows for split, report in reports.items()} == {"train": 18, "test": 2}
    test = pd.read_parquet(tmp_path / "out" / "test.parquet")
    system, question = test["prompt"][0]
    assert system["content"].startswith("\nGiven a question and four options")
    number = test["extra_info"][0]["index"]
    assert question["content"] == (
        f"Which is number {number}?\n\nA: {number}\nB: {number + 1}\nC: {number + 2}\nD: {number + 3}\n"
        "Please reason step by step."
    )


def test_the_number_of_options_bounds_the_letters(tmp_path):
    row = hub_rows.sciknoweval(1, choices={"label": ["A", "B"], "text": ["x", "y"]})[0]
    question = sciknoweval.adapt({**row, "idx": 0}, "train")
    assert question.extra == {"options": "AB"}
    result = compute_score("sciknoweval_biology", "<answer>C</answer>", "A", question.extra)
    assert result["format_ok"] == 0


@pytest.mark.parametrize(
    ("prompt", "letters"),
    [
        ("Which?\n\nA: 1\nB: 2\nC: 3\nD: 4\nPlease", "ABCD"),
        ("Which?\n\nA: 1\n\nB: 2\n\nPlease", "AB"),
        ("Given\nA: not an option\nB: nor this\nC: no\n\nA: 1\nB: 2\nPlease", "AB"),
        ("No options", ""),
    ],
)
def test_option_letters_of_a_written_question(prompt, letters):
    assert sdpo_rows.option_letters(prompt) == letters


def test_gsm8k_gold_is_a_plain_number():
    question = maths.gsm8k({"question": " How many? ", "answer": "Long.\n#### -1,234.5"}, "train")
    assert question.ground_truth == "-1234.5"
    assert question.prompt == f"How many?\n\n{maths.INSTRUCTION}"


def test_dapo_loses_its_own_instruction():
    content = (
        "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
        "$Answer (without quotes) where $Answer is the answer to the problem.\n\nCompute $1+1$.\n\nRemember to put "
        'your answer on its own line after "Answer:".'
    )
    raw = {"prompt": [{"role": "user", "content": content}], "reward_model": {"ground_truth": "2"}}
    assert maths.dapo(raw, "train").prompt == f"Compute $1+1$.\n\n{maths.INSTRUCTION}"


def test_livecodebench_trains_on_half_of_the_tests_and_tests_on_the_private_ones():
    row = hub_rows.livecodebench()
    train = json.loads(programs.livecodebench(row, "train").ground_truth)
    test = json.loads(programs.livecodebench(row, "test").ground_truth)
    assert len(train["public_test_cases"]) == 3
    assert train == json.loads(programs.livecodebench(row, "train").ground_truth)
    assert [case["input"] for case in test["private_test_cases"]] == ["2\n", "3\n", "4\n", "5\n"]
    assert test["public_test_cases"] == train["private_test_cases"] == []
    functional = hub_rows.livecodebench(
        starter_code="class Solution:\n    def twice(self, n): ", metadata='{"func_name": "twice"}'
    )
    assert json.loads(programs.livecodebench(functional, "test").ground_truth)["fn_name"] == "twice"
    assert "class Solution" in programs.livecodebench(functional, "test").prompt


def test_packed_tests_are_text_or_refused():
    """A pickle can call any function; one that wants to is not read."""
    import base64
    import pickle
    import platform
    import zlib

    class Harmful:
        def __reduce__(self):
            return platform.node, ()  # not print, which Ray replaces in a process that shows its progress bars

    text = base64.b64encode(zlib.compress(pickle.dumps(Harmful()))).decode()
    with pytest.raises(PrepareError, match=r"platform\.node"):
        programs.read_cases(text)
    with pytest.raises(PrepareError, match="neither JSON nor packed JSON"):
        programs.read_cases("not base64!")
    assert programs.read_cases("") == []


def test_a_benchmark_of_ones_own_by_module_name(tmp_path, monkeypatch):
    (tmp_path / "my_data.py").write_text(
        "from workflows.prepare.adapters.benchmark import Benchmark, Question\n"
        "def adapt(row, split):\n    return Question(row['q'], row['a'])\n"
        "MINE = Benchmark('mine', 'math', 'math', adapt, columns=('q', 'a'))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "train.jsonl").write_text('{"q": "1+1?", "a": "2"}\n')
    reports = prepare("my_data:MINE", tmp_path / "out", source=tmp_path / "train.jsonl")
    assert reports["train"].rows == 1
    with pytest.raises(PrepareError, match="not a workflows"):
        registry.find("my_data:adapt")
    with pytest.raises(PrepareError, match="cannot be imported"):
        registry.find("my_data:OTHER")


def test_benchmarks_of_other_packages_are_entry_points_and_a_broken_one_harms_nobody(tmp_path, monkeypatch):
    package = tmp_path / "their_data-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: their_data\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        "[srpo_verl.datasets]\ntheirs = their_data:THEIRS\nbroken = their_data:MISSING\n"
    )
    (tmp_path / "their_data.py").write_text(
        "from workflows.prepare.adapters.benchmark import Benchmark\n"
        "THEIRS = Benchmark('theirs', 'math', 'math', print, columns=())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.find("theirs").data_source == "math"
    with pytest.raises(PrepareError, match=r"their_data:MISSING cannot be imported: AttributeError"):
        registry.find("broken")
    with pytest.raises(PrepareError, match="Did you mean 'theirs'"):
        registry.find("their")
    found = registry.known()
    (broken,) = (one for one in found if isinstance(one, PrepareError))
    assert str(broken).startswith("their_data:MISSING")
    assert {one.name for one in found if not isinstance(one, PrepareError)} == {*registry.BUILTIN, "theirs"}
