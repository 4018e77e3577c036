"""`srpo grade`: the verdicts of several graders side by side, as a table and as a page."""

import json

import pytest
from typer.testing import CliRunner

from workflows.cli import app
from workflows.grade.completions import read_completions

NAUGHTY = "<script>alert(1)</script> [red]x[/red] \x1b[31m"
ROWS = [
    {"data_source": "gsm8k", "solution": "#### 72", "ground_truth": "72", "expected": 1},
    {"data_source": "math", "solution": f"{NAUGHTY} \\boxed{{4 or 5}}", "ground_truth": "4", "expected": 0},
    {"data_source": "math", "solution": "\\boxed{\\frac12}", "ground_truth": "0.5", "expected": 1},
    {"data_source": "sciknoweval", "solution": "<answer>(A)</answer>", "ground_truth": "A"},
    {"data_source": "code", "solution": "```python\nprint(3)\n```", "ground_truth": {"inputs": [""], "outputs": ["3"]}},
    {"data_source": "math", "solution": "\\boxed{1}", "ground_truth": ""},
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "completions.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return path


def test_table_and_page(file, tmp_path):
    out = tmp_path / "page.html"
    result = CliRunner().invoke(app, ["grade", str(file), "--out", str(out)], env={"COLUMNS": "300"})
    assert result.exit_code == 0, result.output
    assert "6 completions" in result.output
    for name in ("reward", "strict", "paper", "verl", "math-verify"):
        assert name in result.output
    assert "Judged differently" in result.output
    assert "\x1b[31m" not in result.output
    page = out.read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("<details>") == len(ROWS)
    assert "without a sandbox" in page


def test_a_reward_of_ones_own(file, tmp_path):
    reward = tmp_path / "mine.py"
    reward.write_text(
        "def score(data_source, solution_str, ground_truth, extra_info=None, worth=1):\n    return worth\n"
    )
    arguments = ["--reward", str(reward), "--reward-name", "score", "--reward-kwargs", '{"worth": 1}', "--rows", "3"]
    result = CliRunner().invoke(app, ["grade", str(file), *arguments], env={"COLUMNS": "300"})
    assert result.exit_code == 0, result.output
    line = next(line for line in result.output.splitlines() if " reward " in line and "3" in line)
    assert line.split("\u2502")[2:5] == ["     3 ", "     0 ", "          0 "]


def test_a_reward_without_any_verdict_ends_with_its_reason(file, tmp_path):
    reward = tmp_path / "mine.py"
    reward.write_text("def compute_score(**row):\n    raise SystemExit(0)\n")
    arguments = ["grade", str(file), "--reward", str(reward), "--rows", "1"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})
    assert result.exit_code == 1
    assert "no verdict of the reward on 1 of 1: the function raises SystemExit: 0" in result.output


def test_forms_of_rows(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([
        {"output": "a", "gts": "b", "score": 0},
        {"samples": [{"text": "a"}, {"text": "c"}], "reward_model": {"ground_truth": "b"}, "data_source": "x"},
    ]))  # fmt: skip
    found = read_completions(path, "math")
    assert [(item.solution, item.gold, item.source) for item in found] == [
        ("a", "b", "math"),
        ("a", "b", "math"),
        ("c", "b", "math"),
    ]
    with pytest.raises(ValueError, match=r"row 1: no data_source; give --source"):
        read_completions(path)
    path.write_text(json.dumps([{"data_source": "math", "output": "a"}]))
    with pytest.raises(ValueError, match="no gold answer"):
        read_completions(path)


def test_what_is_wrong_with_the_file_is_said(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"data_source": "math", "solution": "x"}')
    result = CliRunner().invoke(app, ["grade", str(path)])
    assert result.exit_code == 1
    assert "no gold answer" in result.output


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"reward_model": {}}, "row 1: no gold answer"),
        ({"ground_truth": "3", "samples": ["3"]}, "row 1: samples must be a list of objects"),
        ({"ground_truth": "3", "extra_info": "x"}, "row 1: extra_info must be an object"),
        ({"ground_truth": "3", "expected": "yes"}, "row 1: expected must be a score, not 'yes'"),
    ],
)
def test_a_row_that_cannot_be_graded_is_named(tmp_path, row, said):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"data_source": "gsm8k", "solution": "3", **row}))
    with pytest.raises(ValueError, match=said):
        read_completions(path)


def test_folders_where_files_are_meant(file, tmp_path):
    assert CliRunner().invoke(app, ["grade", str(tmp_path)]).exit_code == 2
    result = CliRunner().invoke(app, ["grade", str(file), "--rows", "1", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "cannot write" in result.output


def test_rows_and_verdicts_are_whole_at_80_columns(file):
    result = CliRunner().invoke(app, ["grade", str(file)], env={"COLUMNS": "80"})
    _, disputes = result.stdout.split("Judged differently")
    header, *lines = [line for line in disputes.splitlines() if line.strip()]
    assert [line.split()[0] for line in lines] == ["1", "3", "4"]
    for word in ("row", "reward", "strict", "paper", "verl", "math-verify"):
        assert word in header.split()
    assert all(len(line) <= 80 for line in (header, *lines))
