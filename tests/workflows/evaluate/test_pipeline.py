"""Evaluation with an engine whose answers are known: figures, resuming after a kill, refusals."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reward_fns import compute_score
from srpo_verl.base.lease import FolderTakenError, LeaseLostError, take
from srpo_verl.base.lease_files import claim, newest_record
from tests.patience import PROCESS
from workflows.evaluate.engine import Answer, Sampling
from workflows.evaluate.journal import SettingsDifferError, fingerprint
from workflows.evaluate.pipeline import describe, evaluate, read_rows
from workflows.evaluate.summary import table
from workflows.reward_call import load_reward

LETTERS = "AABC"  # what the fake engine answers to every question; the key of question i is LETTERS[i % 4]


class FakeEngine:
    """Answers A, A, B and something without a letter; counts what it was asked."""

    def __init__(self):
        self.asked: list[int] = []

    def prompt_ids(self, messages):
        return [len(message["content"]) for message in messages]

    def generate(self, prompts):
        self.asked += [number for number, _ in prompts]
        texts = ["<answer>A</answer>", "<answer>A</answer>", "<answer>B</answer>", "thinking"]
        return [[Answer(text, 3 + place, place == 3) for place, text in enumerate(texts)] for _ in prompts]


def questions(count: int, source: str = "mcq"):
    return [
        {
            "data_source": source,
            "prompt": [{"role": "user", "content": f"Question {number}"}],
            "reward_model": {"ground_truth": LETTERS[number % 4]},
            "extra_info": {"index": 100 + number},
        }
        for number in range(count)
    ]


def run(out, rows, engine, **changes):
    arguments = {"batch": 2, "reward": compute_score, "settings": {"model": "fake"}, **changes}
    return evaluate(rows, out, engine=lambda: engine, sampling=Sampling(n=4), **arguments)


def test_figures_by_hand(tmp_path):
    rows = questions(3) + questions(4, "sciknoweval_biology")[3:]  # keys A, A, B and C
    summary = run(tmp_path, rows, FakeEngine())
    assert list(summary.by_source) == ["all", "mcq", "sciknoweval_biology"]
    mcq = summary.by_source["mcq"]
    value = {name: estimate.value for name, estimate in mcq.accuracies.items()}
    assert value == pytest.approx(
        {
            "avg@4": (0.5 + 0.5 + 0.25) / 3,
            "pass@1": (0.5 + 0.5 + 0.25) / 3,
            "pass@2": (5 / 6 + 5 / 6 + 0.5) / 3,
            "pass@4": 1.0,
            "maj@4": 2 / 3,
        }
    )
    assert (mcq.format_rate, mcq.truncated_share, mcq.mean_tokens, mcq.max_tokens) == (0.75, 0.25, 4.5, 6)
    assert (mcq.questions, mcq.answers, mcq.ungraded) == (3, 12, 0)
    assert summary.by_source["sciknoweval_biology"].accuracies["pass@4"].value == 0
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["by_source"]["mcq"]["accuracies"]["maj@4"]["value"] == pytest.approx(2 / 3)
    assert written["settings"]["sampling"]["temperature"] == 0.6
    assert table(summary).row_count == 9
    items = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert [item["index"] for item in items] == [100, 101, 102, 103]
    assert items[0]["samples"][2] == {
        "text": "<answer>B</answer>", "tokens": 5, "truncated": False, "score": 0.0, "acc": 0.0, "format_ok": 1.0,
        "pred": "B", "infra_error": False, "error": "",
    }  # fmt: skip


def test_half_a_line_is_done_again_and_nothing_else(tmp_path):
    whole = run(tmp_path / "whole", questions(5), FakeEngine())
    run(tmp_path / "cut", questions(5), FakeEngine())
    items = tmp_path / "cut" / "items.jsonl"
    lines = items.read_bytes().splitlines(keepends=True)
    items.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    again = FakeEngine()
    summary = run(tmp_path / "cut", questions(5), again)
    assert again.asked == [3, 4]
    assert summary.by_source == whole.by_source
    assert items.read_bytes() == (tmp_path / "whole" / "items.jsonl").read_bytes()

    def no_engine():
        raise AssertionError("nothing is left, so no model is loaded")

    finished = evaluate(
        questions(5), tmp_path / "cut", engine=no_engine, reward=compute_score, sampling=Sampling(n=4),
        settings={"model": "fake"},
    )  # fmt: skip
    assert finished.by_source == whole.by_source


def test_killed_and_started_again(tmp_path):
    """SIGKILL in the middle of the second batch: the first is kept, and graded once."""
    program = Path(__file__).with_name("killed_evaluation.py")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, str(program), str(tmp_path)]
    killed = subprocess.run([*command, "2"], env=environment, timeout=PROCESS, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len((tmp_path / "items.jsonl").read_text().splitlines()) == 2
    subprocess.run([*command, "none"], env=environment, timeout=PROCESS, check=True)
    numbers = [json.loads(line)["number"] for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert numbers == [0, 1, 2, 3, 4]
    graded = (tmp_path / "graded.txt").read_text().split()
    assert sorted(set(graded)) == [f"Question-{number}" for number in range(5)]
    # Question 2 was being graded when the process died; all others got their four verdicts once.
    assert all(graded.count(f"Question-{number}") == 4 for number in (0, 1, 3, 4))


def test_another_evaluation_in_the_same_folder_is_refused(tmp_path):
    run(tmp_path, questions(2), FakeEngine())
    with pytest.raises(SettingsDifferError, match="model: 'fake' there, 'other' now"):
        run(tmp_path, questions(2), FakeEngine(), settings={"model": "other"})
    run(tmp_path, questions(2), FakeEngine(), batch=7)  # how it is cut into batches is nobody's business


def test_a_full_disk_keeps_what_was_graded(tmp_path, monkeypatch):
    real, calls = os.fsync, []

    def fsync(number):
        calls.append(os.path.basename(os.readlink(f"/proc/self/fd/{number}")))
        if calls[-1] == "items.jsonl" and calls.count("items.jsonl") == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=r"No space left on device\. The 2 questions before are kept"):
        run(tmp_path, questions(5), FakeEngine())
    again = FakeEngine()
    summary = run(tmp_path, questions(5), again)
    assert (summary.by_source["all"].questions, summary.by_source["all"].answers) == (5, 20)


def test_a_damaged_file_is_not_overwritten(tmp_path):
    run(tmp_path, questions(2), FakeEngine())
    (tmp_path / "items.jsonl").write_text("not json\n")
    with pytest.raises(ValueError, match=r"items\.jsonl is damaged"):
        run(tmp_path, questions(2), FakeEngine())


def test_answers_without_a_verdict_count_neither_way(tmp_path):
    rows = questions(1) + [{**row, "reward_model": {"ground_truth": "none"}} for row in questions(1)]
    summary = run(tmp_path, rows, FakeEngine())
    figures = summary.by_source["all"]
    assert figures.ungraded == 4
    assert figures.accuracies["avg@4"].value == 0.5
    with pytest.raises(ValueError, match=r"not one of 4 answers could be graded: BadGroundTruth: .*none"):
        run(tmp_path / "none", rows[1:], FakeEngine())


def test_rewards_of_ones_own(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def plain(data_source, solution_str, ground_truth, extra_info, bonus=0.0):\n"
        "    return float('A' in solution_str) + bonus\n"
        "async def slow(data_source, solution_str, ground_truth, extra_info):\n"
        "    return {'score': 0.5, 'acc': ground_truth in solution_str}\n"
    )
    plain = load_reward(str(tmp_path / "mine.py"), "plain", {"bonus": 0.25})
    summary = run(tmp_path / "plain", questions(1), FakeEngine(), reward=plain)
    assert summary.by_source["all"].accuracies["avg@4"].value == 0.75
    assert summary.by_source["all"].format_rate is None
    assert "maj@4" not in summary.by_source["all"].accuracies
    slow = load_reward(str(tmp_path / "mine.py"), "slow")
    assert run(tmp_path / "slow", questions(1), FakeEngine(), reward=slow).by_source["all"].accuracies["pass@4"].value


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise OSError('no network')", "the function raises OSError: no network"),
        ("raise SystemExit(3)", "the function raises SystemExit: 3"),
        ("return {'score': float('nan')}", "its score is not finite: {'score': nan}"),
    ],
)
def test_a_reward_without_verdicts_ends_at_its_first_batch(tmp_path, body, says):
    mine = tmp_path / "mine.py"
    mine.write_text(f"def compute_score(**arguments):\n    {body}\n")
    engine, out = FakeEngine(), tmp_path / "out"
    with pytest.raises(ValueError, match=re.escape(f"not one of 8 answers could be graded: {says}")):
        run(out, questions(6), engine, reward=load_reward(str(mine)))
    assert engine.asked == [0, 1]
    # Mended, it is asked again about all of them.
    mine.write_text("def compute_score(**arguments):\n    return 1.0\n")
    summary = run(out, questions(6), FakeEngine(), reward=load_reward(str(mine)))
    assert summary.by_source["all"].accuracies["avg@4"].value == 1.0


def test_a_reward_that_raises_now_and_then_loses_no_other_verdict(tmp_path):
    def reward(solution_str, **arguments):
        return {"A": 1.0, "B": None}[re.findall("[AB]", solution_str)[0]]  # IndexError for the last answer

    summary = run(tmp_path, questions(2), FakeEngine(), reward=reward)
    assert summary.by_source["all"].ungraded == 4
    assert summary.by_source["all"].accuracies["avg@4"].value == 1.0
    first = json.loads((tmp_path / "items.jsonl").read_text().splitlines()[0])["samples"]
    assert [sample["error"] for sample in first] == [
        "", "", "its score is missing: None", "the function raises IndexError: list index out of range",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"n": 0}, "1 or more"), ({"temperature": -1.0}, "not be negative"), ({"temperature": 0.0}, "set n=1")],
)
def test_sampling_that_makes_no_sense(changes, says):
    with pytest.raises(ValueError, match=says):
        Sampling(**changes)


def test_data_files(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    good = tmp_path / "good.parquet"
    pq.write_table(pa.Table.from_pylist(questions(3)), good)
    assert len(read_rows(good)) == 3
    assert len(read_rows(good, 2)) == 2
    pq.write_table(pa.Table.from_pylist([{"question": "?"}]), tmp_path / "columns.parquet")
    with pytest.raises(ValueError, match=r"lacks the column\(s\) data_source, prompt, reward_model; it has"):
        read_rows(tmp_path / "columns.parquet")
    unanswerable = [*questions(2), {**questions(1)[0], "prompt": []}]
    pq.write_table(pa.Table.from_pylist(unanswerable), tmp_path / "unanswerable.parquet")
    with pytest.raises(ValueError, match=r"has 1 of 3 rows without a prompt \(rows 2\)$"):
        read_rows(tmp_path / "unanswerable.parquet")
    with pytest.raises(ValueError, match="srpo prepare"):
        read_rows(tmp_path / "missing.parquet")
    good.write_bytes(good.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot be read as parquet"):
        read_rows(good)


def test_the_model_is_known_by_its_content(tmp_path):
    (tmp_path / "model").mkdir()
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(b"0" * 100)
    data = tmp_path / "data"
    data.write_bytes(b"1")
    before = describe(str(tmp_path / "model"), data, 3)
    weights.write_bytes(b"0" * 99 + b"1")
    after = describe(str(tmp_path / "model"), data, 3)
    assert {key for key in before if before[key] != after[key]} == {"model_sha256"}
    assert describe("Qwen/Qwen3-8B", data, 3)["model_sha256"] is None
    assert fingerprint(data) == before["data_sha256"]


def test_two_evaluations_do_not_write_into_one_folder(tmp_path):
    with take(tmp_path, what="evaluating"), pytest.raises(FolderTakenError, match="wait for it, end it"):
        run(tmp_path, questions(2), FakeEngine())
    assert not (tmp_path / "items.jsonl").exists()


def test_an_evaluation_that_lost_its_folder_writes_no_more(tmp_path):
    class Late(FakeEngine):
        def generate(self, prompts):
            newest = newest_record(tmp_path)
            claim(tmp_path, dataclasses.replace(newest, token="other", generation=newest.generation + 1))
            return super().generate(prompts)

    with pytest.raises(LeaseLostError, match="taken over by run other"):
        run(tmp_path, questions(2), Late())
    assert not (tmp_path / "items.jsonl").exists()
