"""The parts of `make walk` that need no engine: its questions, its model, its script."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pandas as pd
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples.walk import build
from reward_fns import compute_score
from workflows.prepare.pipeline import prepare

SCRIPT = Path(build.__file__).with_name("walk.sh")


def test_made_up_questions_are_prepared_like_published_ones(tmp_path):
    build.make_questions(tmp_path / "questions", seed=0)
    reports = prepare("biology", tmp_path / "data", source=tmp_path / "questions")
    assert {split: (report.rows, report.bad) for split, report in reports.items()} == {
        "train": (128, []),
        "test": (64, []),
    }
    for row in pd.read_parquet(tmp_path / "data" / "test.parquet").itertuples():
        question = row.prompt[1]["content"]
        named = re.search(r"Which option is (\d+)\?", question)[1]
        assert f"\n{row.reward_model['ground_truth']}: {named}\n" in question


def test_the_model_is_complete_and_its_answers_are_in_form(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "STEPS", 1)
    build.make_model(tmp_path, seed=0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.vocab_size == len(tokenizer)
    ids = tokenizer.encode(build.answer("B"))
    assert len(ids) <= 4
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert compute_score("sciknoweval_biology", text, "B", {"options": "ABCD"})["acc"] == 1


def test_the_script_parses():
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    assert SCRIPT.stat().st_mode & 0o111
