"""The data check: finds each kind of defect with its row number, and passes sound data."""

import json

import pytest

from reward_fns import register, registry
from reward_fns.check import check_file, main, read_rows


def row(source, prompt, gold, **extra):
    return {
        "data_source": source,
        "prompt": [{"role": "user", "content": prompt}],
        "reward_model": {"style": "rule", "ground_truth": gold},
        "extra_info": extra,
    }


CALL = json.dumps([{"Action": "f", "Action_Input": '{"a": {"b": 1}}'}])
TESTS = json.dumps({"inputs": ["1 2"], "outputs": ["3"]})
HUMAN_EVAL = {"prompt": "def f(x):\n    '''One more.'''\n", "entry_point": "f"}
HUMAN_EVAL["test"] = "def check(candidate):\n    assert candidate(1) == 2\n"

SOUND = [
    row("gsm8k", "a", "1,234"),
    row("gsm8k", "a2", "So 5 + 7 = 12\n#### 12"),
    row("math", "b", "\\frac{\\sqrt{2}}{2}"),
    row("smollm2_arithmetic", "c", "7"),
    row("sciknoweval", "d", "B", options="ABCD"),
    row("tooluse", "e", CALL),
    row("apps", "f", TESTS, reference="print(sum(map(int, input().split())))"),
    row("humaneval", "g", json.dumps(HUMAN_EVAL), canonical_solution="    return x + 1\n"),
    row("mbpp", "h", json.dumps({"test_list": ["assert f(1) == 2"], "code": "def f(x): return x + 1"})),
]
DEFECTS = [
    ("contradiction", row("gsm8k", "a", "1235")),
    ("duplicate", SOUND[2]),
    ("gold fails", row("apps", "i", TESTS, reference="print(0)")),
    ("bad gold", row("apps", "j", json.dumps({"inputs": [], "outputs": []}), reference="print(0)")),
    ("no reference", row("apps", "k", TESTS)),
    ("no verdict", row("sciknoweval", "l", "E", options="ABCD")),
    ("bad gold", row("math", "m", "{x")),
    ("bad gold", row("math", "m2", "\\oplus \\frac{x}{}")),
    ("bad gold", row("gsm8k", "n", "")),
    ("bad gold", row("tooluse", "o", "[]")),
    ("unknown source", row("gsm9k", "p", "1")),
    ("schema", {"prompt": "x"}),
    ("schema", row("gsm8k", "", "1")),
    ("schema", {"data_source": "gsm8k", "prompt": "x"}),
    ("schema", [1, 2]),
]


def write(path, rows):
    path.write_text("".join(json.dumps(item) + "\n" for item in rows) + "\n")
    return path


def test_sound_data_passes(tmp_path, capsys):
    path = write(tmp_path / "sound.jsonl", SOUND)
    assert main(["--data", str(path)]) == 0, capsys.readouterr().out
    assert "0 problems" in capsys.readouterr().out


def test_every_defect_is_found_with_its_row(tmp_path, capsys):
    path = write(tmp_path / "bad.jsonl", SOUND + [item for _, item in DEFECTS])
    problems, _ = check_file(path)
    found = [(problem.row, problem.kind) for problem in problems]
    assert found == [(len(SOUND) + number, kind) for number, (kind, _) in enumerate(DEFECTS, 1)]
    assert main(["--data", str(path)]) == 1
    printed = capsys.readouterr().out
    assert "gold fails" in printed
    assert "Did you mean 'gsm8k'" in printed


def test_broken_lines_and_parquet(tmp_path):
    path = tmp_path / "broken.jsonl"
    path.write_text(json.dumps(SOUND[0]) + "\n{broken\n")
    problems, _ = check_file(path)
    assert [(problem.row, problem.kind) for problem in problems] == [(2, "schema")]
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{**item, "extra_info": {"index": number}} for number, item in enumerate(SOUND[:4])]
    parquet.write_table(pyarrow.Table.from_pylist([*rows, rows[0]]), tmp_path / "rows.parquet")
    problems, counts = check_file(tmp_path / "rows.parquet")
    assert [(problem.row, problem.kind) for problem in problems] == [(5, "duplicate")]
    assert counts["gsm8k"] == 3


def test_sources_are_listed(capsys):
    assert main(["--sources"]) == 0
    assert "reward_fns.graders.math" in capsys.readouterr().out


def test_published_rows_pass(published_rows, tmp_path):
    rows = published_rows("tooluse/sample.json") + published_rows("sciknoweval/biology/test.json")
    problems, counts = check_file(write(tmp_path / "rows.jsonl", rows))
    assert problems == []
    assert counts == {"tooluse": 34, "sciknoweval": 50}


def test_gold_answers_of_a_grader_of_ones_own_are_said_not_to_be_graded(tmp_path, capsys):
    @register("own_source")
    def grade(solution, ground_truth, extra_info):
        return solution == f"It is {ground_truth}."

    try:
        path = write(tmp_path / "rows.jsonl", [row("own_source", "a", "1"), *SOUND[:1]])
        assert main(["--data", str(path)]) == 0
    finally:
        registry.unregister("own_source")
    assert "1 own_source, 1 gsm8k; 0 problems\n  gold answers not graded: own_source has" in capsys.readouterr().out
    assert main(["--data", str(write(tmp_path / "rows.jsonl", SOUND[:1]))]) == 0
    assert "not graded" not in capsys.readouterr().out


def test_lines_end_where_json_says_and_a_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / "rows.jsonl"
    text = json.dumps(row("gsm8k", "a\u2028b\u0085c", "3"), ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + f"{text}\r\n{json.dumps(row('gsm8k', 'd', '4'))}\n".encode())
    assert [found["reward_model"]["ground_truth"] for found in read_rows(path)] == ["3", "4"]
