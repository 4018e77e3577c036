"""The SmolLM2 example: data, verdict, and the conversion where the package can be had."""

import json
import os
import re
from pathlib import Path

import pandas as pd
import pytest
import torch

from examples.smollm2 import data, letter_reward, prepare
from workflows.prepare.adapters.benchmark import PrepareError

TEST_DATA = os.environ.get("SRPO_TEST_DATA")


def write(path: Path, *items) -> Path:
    path.write_text("\n".join(json.dumps(item) for item in items))
    return path


def test_rows_have_verls_columns_and_no_reasoning_instruction(tmp_path):
    item = {"system": "S", "prompt": "Which?\nA: 1\nB: 2\nPlease reason step by step.", "answer": "B", "idx": 3}
    item |= {"kind": "mcq", "dataset": "sciknoweval"}
    (row,) = data.sciknoweval_rows(write(tmp_path / "train.json", item), limit=None)
    assert row["prompt"] == [
        {"role": "user", "content": "Which?\nA: 1\nB: 2\n\nReply with the letter of the correct option only."}
    ]
    assert row["reward_model"]["ground_truth"] == "B"
    assert row["extra_info"] == {"split": "train", "index": 0}
    (published,) = data.sciknoweval_rows(tmp_path / "train.json", limit=None, keep_instruction=True)
    assert [message["content"] for message in published["prompt"]] == ["S", item["prompt"]]


def test_a_file_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "bad.json").write_text('{"system": "S", "prompt": "P"}')
    with pytest.raises(PrepareError, match=r"bad\.json, row 1 lacks"):
        data.sciknoweval_rows(tmp_path / "bad.json", limit=None)
    with pytest.raises(PrepareError, match="there is no such file"):
        data.sciknoweval_rows(tmp_path / "nothing.json", limit=None)


@pytest.mark.skipif(TEST_DATA is None, reason="SRPO_TEST_DATA is not set")
def test_published_chemistry_rows(tmp_path):
    path = Path(TEST_DATA or "") / "sciknoweval" / "chemistry" / "train.json"
    rows = data.sciknoweval_rows(path, limit=None)
    assert len(rows) == 1890
    assert {row["reward_model"]["ground_truth"] for row in rows} == set("ABCD")
    pd.DataFrame(rows[:5]).to_parquet(tmp_path / "rows.parquet")
    assert len(pd.read_parquet(tmp_path / "rows.parquet")) == 5


def test_arithmetic_rows_are_right_and_reproducible():
    rows = data.arithmetic_rows(50, split="train", seed=1)
    assert rows == data.arithmetic_rows(50, split="train", seed=1)
    held_out = {row["prompt"][0]["content"] for row in data.arithmetic_rows(500, split="test", seed=1)}
    assert not held_out & {row["prompt"][0]["content"] for row in data.arithmetic_rows(500, split="train", seed=1)}
    for index, row in enumerate(rows):
        text = row["prompt"][0]["content"]
        if index % 2:
            first, more, fewer = map(int, re.findall(r"\d+", text))
            expected = first + more - fewer
        else:
            _, _, a, sign, b = text.split("?")[0].split()
            expected = int(a) + int(b) if sign == "+" else int(a) - int(b)
        assert row["reward_model"]["ground_truth"] == str(expected)
        assert expected >= 0 or not index % 2


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("D", "D"),
        ("A: 18", "A"),
        ("The correct option is C.", "C"),
        ("A chemist says B", "A"),
        ("18", None),
        ("IUPAC", None),
        ("CC(=O)C1(CCC1)N", None),
    ],
)
def test_first_letter(reply, letter):
    for key in "ABCD":
        result = letter_reward.compute_score("sciknoweval", reply, key)
        assert result["acc"] == float(letter == key)
        assert result["format_ok"] == float(letter is not None)


def test_another_file_is_refused(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(SystemExit, match="expected b179c952"):
        prepare.convert(tmp_path / "x.gguf", tmp_path / "out")
    with pytest.raises(SystemExit, match="there is no such file"):
        prepare.convert(tmp_path / "y.gguf", tmp_path / "out")


@pytest.mark.slow
def test_converted_model_equals_transformers_own_reading(tmp_path):
    """Every weight bit for bit, the same token ids, and a model that adds two digits."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        source = prepare.fetch(tmp_path)
    except SystemExit as error:
        pytest.skip(str(error))
    prepare.convert(source, tmp_path / "model")
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=source.name, dtype=torch.float32)
    state, expected = ours.state_dict(), theirs.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    reference = AutoTokenizer.from_pretrained(tmp_path, gguf_file=source.name)
    text = "What is 1234+57? Zürich, 2-methyl {x}\n\n<|im_end|>"
    assert tokenizer.encode(text) == reference.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.pad_token_id != tokenizer.eos_token_id == 2
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 3+4? Reply with the number only."}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=False,
    )
    reply = ours.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False)
    assert "7" in tokenizer.decode(reply[0, prompt.shape[1] :])
