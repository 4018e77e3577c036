"""What `srpo prepare` accepts, refuses, counts and leaves behind."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import reward_fns
from srpo_verl.base.lease import take
from tests.workflows.prepare import hub_rows
from workflows.cli import app
from workflows.prepare import published, registry, sources
from workflows.prepare.adapters.benchmark import HubSplit, PrepareError, Published
from workflows.prepare.output import MANIFEST, read_manifest
from workflows.prepare.pipeline import prepare

TEST_DATA = os.environ.get("SRPO_TEST_DATA")
real_data = pytest.mark.skipif(TEST_DATA is None, reason="SRPO_TEST_DATA is not set")
# Table of docs/workflows.md: rows of train and test.
SPLITS = {"chemistry": (1890, 210), "biology": (450, 50), "materials": (841, 94)}


def jsonl(path: Path, *rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def shared(name: str) -> Path:
    return Path(TEST_DATA or "") / "sciknoweval" / {"materials": "material"}.get(name, name)


def srpo(*words):
    return CliRunner().invoke(app, ["prepare", *map(str, words)])


@real_data
@pytest.mark.parametrize("name", SPLITS)
def test_published_files_are_recognised_as_exact(name, tmp_path):
    reports = prepare(name, tmp_path / "out", source=shared(name), strict=True)
    assert [reports[split].rows for split in ("train", "test")] == list(SPLITS[name])
    assert all(report.agreement == published.EXACT and not report.problems for report in reports.values())
    frame = pd.concat(pd.read_parquet(tmp_path / "out" / f"{split}.parquet") for split in ("train", "test"))
    options = frame["extra_info"].map(lambda extra: extra["options"])
    assert dict(options.value_counts()) == ({"ABCD": 300, "AB": 200} if name == "biology" else {"ABCD": len(frame)})


@real_data
@pytest.mark.parametrize("name", SPLITS)
def test_the_same_rows_in_the_hubs_layout_are_split_and_written_alike(name, tmp_path):
    """The published files give back the hub's rows; from these, our split and prompts are the published ones."""
    rows = [json.loads(line) for file in shared(name).glob("*.json") for line in file.read_text().splitlines()]
    hub = [as_hub_row(row, name) for row in sorted(rows, key=lambda row: row["idx"])]
    reports = prepare(name, tmp_path / "out", source=jsonl(tmp_path / "hub.jsonl", *hub), strict=True)
    assert all(report.agreement == published.EXACT for report in reports.values())


def as_hub_row(row, name):
    question = row["description"].removesuffix(" The solution will be evaluated in a mcq environment.")
    rest = row["prompt"].removeprefix(question + "\n\nA: ").removesuffix("\nPlease reason step by step.")
    texts = []
    for letter in "BCD":
        text, found, rest = rest.partition(f"\n{letter}: ")
        texts.append(text)
        if not found:
            break
    else:
        texts.append(rest)
    choices = {"label": list("ABCD")[: len(texts)], "text": texts}
    domain = {"materials": "Material"}.get(name, name.capitalize())
    return hub_rows.sciknoweval(1, domain=domain, question=question, choices=choices, answerKey=row["answer"])[0]


@real_data
def test_a_sample_of_the_tool_use_questions(tmp_path):
    source = Path(TEST_DATA or "") / "tooluse"
    with pytest.raises(PrepareError, match="for training or for testing"):
        prepare("tooluse", tmp_path / "out", source=source)
    report = prepare("tooluse", tmp_path / "out", source=source, split="test")["test"]
    assert (report.rows, report.bad) == (34, [])
    assert report.agreement == published.COUNT_DIFFERS
    row = pd.read_parquet(tmp_path / "out" / "test.parquet").iloc[0]
    assert [message["role"] for message in row["prompt"]] == ["user"]  # its system text is null
    assert row["extra_info"]["index"] == 4046


def test_the_manifest_says_what_was_made(tmp_path):
    source = jsonl(tmp_path / "test.jsonl", hub_rows.TOOLUSE)
    prepare("tooluse", tmp_path / "out", source=source)
    manifest = read_manifest(tmp_path / "out")
    assert manifest["benchmark"] == manifest["data_source"] == "tooluse"
    assert list(manifest["source"]["files"]) == [str(source)]
    split = manifest["splits"]["test"]
    assert (split["rows"], split["published"]["rows"], split["agreement"]) == (1, 68, published.COUNT_DIFFERS)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [MANIFEST, "test.parquet"]


def test_the_hash_does_not_depend_on_the_order_but_on_every_word():
    def row(text, gold="1"):
        return {"prompt": [{"role": "user", "content": text}], "reward_model": {"ground_truth": gold}}

    one = published.content_hash([row("a"), row("b")])
    assert one == published.content_hash([row("b"), row("a")])
    assert len({one, published.content_hash([row("a")]), published.content_hash([row("a"), row("b", "2")])}) == 3
    assert published.compare(2, one, Published(2, one)) == published.EXACT
    assert published.compare(2, one, Published(2)) == published.COUNT
    assert published.compare(2, one, Published(2, "other")) == published.CONTENT_DIFFERS
    assert published.compare(3, one, Published(2, one)) == published.COUNT_DIFFERS
    assert published.compare(3, one, None) == published.UNKNOWN


def test_bad_gold_answers_are_refused_dropped_or_kept(tmp_path):
    good, bad = hub_rows.TOOLUSE, {**hub_rows.TOOLUSE, "prompt": "Other.", "answer": "[]"}
    source = jsonl(tmp_path / "train.jsonl", good, bad, {**good, "prompt": "Third.", "answer": None})
    with pytest.raises(PrepareError, match=r"2 row\(s\):\n  train row 2: bad gold.*\n  train row 3: unreadable"):
        prepare("tooluse", tmp_path / "out", source=source)
    assert not (tmp_path / "out" / MANIFEST).exists()
    dropped = prepare("tooluse", tmp_path / "out", source=source, bad_rows="drop")["train"]
    assert (dropped.rows, dropped.dropped, dropped.source_rows) == (1, 2, 3)
    assert read_manifest(tmp_path / "out")["splits"]["train"]["bad_rows"] == [2, 3]
    kept = prepare("tooluse", tmp_path / "out", source=source, bad_rows="keep", force=True)["train"]
    assert (kept.rows, kept.dropped) == (2, 1)


OWN_SET = """\
from reward_fns import register
from workflows.prepare.adapters.benchmark import Benchmark, HubSplit, Question

MINE = Benchmark(
    name="mine", data_source="own_source", ability="x", columns=("q", "a"), hub={"train": HubSplit("me/mine", "train")},
    adapt=lambda row, split: Question(prompt=row["q"], ground_truth=row["a"]),
)
register("own_source")(lambda solution, ground_truth, extra_info: solution == f"It is {ground_truth}.")
"""


def test_gold_answers_of_a_grader_of_ones_own_are_said_not_to_be_graded(tmp_path, monkeypatch):
    (tmp_path / "own_set.py").write_text(OWN_SET)
    monkeypatch.syspath_prepend(tmp_path)
    source = jsonl(tmp_path / "train.jsonl", {"q": "1 + 1?", "a": "2"})
    try:
        result = srpo("own_set:MINE", "--from", source, "--out", tmp_path / "out")
    finally:
        reward_fns.registry.unregister("own_source")
    assert result.exit_code == 0, result.output
    assert result.output.count("gold answers not graded: own_source has a grader of your own") == 1


def test_duplicates_are_told_and_kept(tmp_path):
    source = jsonl(tmp_path / "train.jsonl", hub_rows.TOOLUSE, hub_rows.TOOLUSE)
    report = prepare("tooluse", tmp_path / "out", source=source)["train"]
    assert [problem.kind for problem in report.problems] == ["duplicate"]
    assert report.rows == 2


def test_strict_and_rows(tmp_path):
    source = jsonl(tmp_path / "train.jsonl", hub_rows.TOOLUSE, {**hub_rows.TOOLUSE, "prompt": "Other."})
    with pytest.raises(PrepareError, match=r"2 rows, published 4046"):
        prepare("tooluse", tmp_path / "out", source=source, strict=True)
    report = prepare("tooluse", tmp_path / "out", source=source, rows=1)["train"]
    assert (report.rows, report.source_rows) == (1, 2)


def test_a_finished_data_set_is_not_replaced_and_an_unfinished_one_is(tmp_path):
    source = jsonl(tmp_path / "train.jsonl", hub_rows.TOOLUSE)
    prepare("tooluse", tmp_path / "out", source=source)
    with pytest.raises(PrepareError, match="--force"):
        prepare("tooluse", tmp_path / "out", source=source)
    (tmp_path / "out" / MANIFEST).unlink()
    with pytest.raises(PrepareError, match="did not end"):
        read_manifest(tmp_path / "out")
    prepare("tooluse", tmp_path / "out", source=source)
    assert read_manifest(tmp_path / "out")["splits"]["train"]["rows"] == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_full_disk_leaves_nothing_that_looks_complete(number, tmp_path, monkeypatch):
    import pyarrow.parquet

    def fail(self, table):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pyarrow.parquet.ParquetWriter, "write_table", fail)
    result = srpo("tooluse", "--from", jsonl(tmp_path / "train.jsonl", hub_rows.TOOLUSE), "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert ("disk is full" if number == errno.ENOSPC else "Permission denied") in result.output
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "train.jsonl",
            '{"question": "1?"}\n',
            "row 1 lacks the column(s) answer; it has question. gsm8k is read in the",
        ),
        ("train.jsonl", "{}\nnot json\n", "line 2 is not a JSON object"),
        ("train.jsonl", "", "holds no rows"),
        ("train.jsonl", "[1]", "not objects"),
        ("train.parquet", "PAR1", "cannot be read"),
        ("rows.jsonl", '{"question": "1?", "answer": "1"}\n', "for training or for testing"),
        ("readme.txt", "", "no .json, .jsonl, .parquet file"),
    ],
)
def test_files_that_cannot_be_used(name, content, says, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_text(content)
    result = srpo("gsm8k", "--from", tmp_path / "in", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert says in result.output
    assert not (tmp_path / "out").exists()


def test_a_folder_of_folders_is_not_mixed(tmp_path):
    for name in ("one", "two"):
        (tmp_path / "in" / name).mkdir(parents=True)
        jsonl(tmp_path / "in" / name / "train.jsonl", hub_rows.TOOLUSE)
    with pytest.raises(PrepareError, match=r"several folders, name one of them: .*one, .*two"):
        prepare("tooluse", tmp_path / "out", source=tmp_path / "in")
    (tmp_path / "in" / "two" / "train.jsonl").unlink()
    assert prepare("tooluse", tmp_path / "out", source=tmp_path / "in")["train"].rows == 1


def test_rows_of_another_domain_are_no_rows(tmp_path):
    source = jsonl(tmp_path / "all.jsonl", *hub_rows.sciknoweval(3, domain="Biology"))
    with pytest.raises(PrepareError, match="is it another data set"):
        prepare("chemistry", tmp_path / "out", source=source)


def test_command_line_errors(tmp_path):
    missing = srpo("gsm8k", "--from", tmp_path / "nothing", "--out", tmp_path / "out")
    assert missing.exit_code == 1
    assert "there is no such file or folder" in missing.output
    unknown = srpo("chemstry")
    assert unknown.exit_code == 1
    assert "Did you mean 'chemistry'?" in unknown.output
    assert srpo().exit_code == 2
    assert srpo("gsm8k", "--split", "validation").exit_code == 2
    assert srpo("tooluse").exit_code == 1
    assert "github.com/lasgroup/SDPO" in srpo("tooluse").output.replace("\n", "")
    listed = srpo("--list").output
    assert all(name in listed for name in registry.BUILTIN)


def test_an_unreachable_hub_is_a_sentence(monkeypatch):
    """No network in tests; whichever way `datasets` says so."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(PrepareError, match=r"could not be loaded from the Hugging Face hub.*--from"):
        sources.load_split(HubSplit("openai/no-such-data-set-of-ours", "train"))


def test_two_preparations_do_not_write_into_one_folder(tmp_path):
    source = jsonl(tmp_path / "test.jsonl", hub_rows.TOOLUSE)
    with (
        take(tmp_path / "out", what="preparing"),
        pytest.raises(PrepareError, match=r"belongs to run .* preparing since"),
    ):
        prepare("tooluse", tmp_path / "out", source=source)
    assert not (tmp_path / "out" / MANIFEST).exists()


PROBLEM = {"problem": "1 + 1?", "answer": "2"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"problem": 5, "answer": "2"}, "AttributeError"),
        ({"problem": None, "answer": "2"}, "no value in problem"),
        ({"problem": " ", "answer": "2"}, "the problem is empty"),
        ({"problem": "x", "answer": None, "solution": None}, "an answer is a text or a number, not None"),
        ({"problem": "x \ud83d", "answer": "2"}, "surrogates not allowed"),
    ],
)
def test_a_row_without_a_usable_value_is_listed(tmp_path, row, said):
    source = jsonl(tmp_path / "test.jsonl", PROBLEM, row)
    result = srpo("aime24", "--from", source, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "test row 2: unreadable" in result.output
    assert said in result.output
    assert srpo("aime24", "--from", source, "--out", tmp_path / "out", "--bad-rows", "drop").exit_code == 0
    assert len(pd.read_parquet(tmp_path / "out" / "test.parquet")) == 1


def test_zero_is_an_answer(tmp_path):
    prepare("aime24", tmp_path / "out", source=jsonl(tmp_path / "test.jsonl", {"problem": "1 - 1?", "answer": 0}))
    assert pd.read_parquet(tmp_path / "out" / "test.parquet")["reward_model"][0]["ground_truth"] == "0"


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path):
    (tmp_path / "test.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(PROBLEM).encode())
    assert prepare("aime24", tmp_path / "out", source=tmp_path / "test.jsonl")["test"].rows == 1


def test_a_replaced_data_set_keeps_no_split_of_the_old_one(tmp_path):
    row = {"question": "1 + 1?", "answer": "#### 2"}
    jsonl(tmp_path / "train.jsonl", row)
    jsonl(tmp_path / "test.jsonl", row)
    prepare("gsm8k", tmp_path / "out", source=tmp_path)
    prepare("gsm8k", tmp_path / "out", source=tmp_path / "train.jsonl", force=True)
    assert sorted(file.name for file in (tmp_path / "out").glob("*.parquet")) == ["train.parquet"]


def test_a_file_that_no_preparation_wrote_stays(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "test.parquet").write_text("somebody's own")
    source = jsonl(tmp_path / "train.jsonl", {"question": "1 + 1?", "answer": "#### 2"})
    for force in (False, True):
        prepare("gsm8k", tmp_path / "out", source=source, force=force)
    assert (tmp_path / "out" / "test.parquet").read_text() == "somebody's own"


@pytest.mark.parametrize("second", ["two", 10**30])
def test_columns_of_several_types_are_said(tmp_path, second):
    row = {"kind": "mcq", "dataset": "x", "answer": "A", "prompt": "q\nA: 1\nB: 2\n"}
    source = jsonl(tmp_path / "train.jsonl", {**row, "idx": 1}, {**row, "prompt": f"p{row['prompt']}", "idx": second})
    with pytest.raises(PrepareError, match="several types"):
        prepare("biology", tmp_path / "out", source=source)


def test_hub_rows_that_cannot_be_selected_or_split_are_said(tmp_path):
    row = {"domain": "Chemistry", "details": {"level": "L3"}, "type": "mcq-4-choices", "question": "q"}
    row |= {"choices": {"label": list("ABCD"), "text": list("wxyz")}, "answerKey": "A"}
    with pytest.raises(PrepareError, match=r"1 row\(s\) of chemistry cannot be split"):
        prepare("chemistry", tmp_path / "out", source=jsonl(tmp_path / "all.jsonl", row))
    with pytest.raises(PrepareError, match="split all, row 1 cannot be read"):
        prepare("chemistry", tmp_path / "out", source=jsonl(tmp_path / "all.jsonl", {**row, "details": None}))


def test_settings_that_the_grader_refuses_are_said(tmp_path):
    source = jsonl(tmp_path / "test.jsonl", PROBLEM)
    with pytest.raises(PrepareError, match="--reward-kwargs: mode='loose' is unknown"):
        prepare("aime24", tmp_path / "out", source=source, reward_kwargs={"mode": "loose"})
