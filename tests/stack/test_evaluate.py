"""`srpo evaluate` with the real vLLM on a tiny model: a checkpoint of two FSDP ranks, merged by verl."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from tests.patience import RUN, STACK_TEST
from tests.stack.launch import ENVIRONMENT, REPOSITORY
from workflows.evaluate.journal import fingerprint

pytestmark = [pytest.mark.stack, pytest.mark.timeout(STACK_TEST)]


def python(*words, **environment):
    settings = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(REPOSITORY), **environment}
    done = subprocess.run(
        [sys.executable, *map(str, words)], env=settings, capture_output=True, text=True, timeout=RUN, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def write_data(folder):
    """Twelve long questions: together more tokens than vLLM takes at once, which seeded sampling must survive."""
    rows = [
        {
            "data_source": "checksum",
            "prompt": [{"role": "user", "content": "".join(chr(97 + (n * n + j * j) % 26) for j in range(600))}],
            "reward_model": {"style": "rule", "ground_truth": "0"},
            "extra_info": {"index": n, "split": "test"},
        }
        for n in range(12)
    ]
    pd.DataFrame(rows).to_parquet(folder / "data.parquet")
    return folder / "data.parquet"


def test_a_sharded_checkpoint_is_merged_and_evaluated_the_same_each_time(stack_model, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    data = write_data(tmp_path)
    step = tmp_path / "global_step_4"
    python("-m", "tests.workflows.evaluate.sharded_checkpoint", stack_model, step, 2)
    words = ["-m", "workflows.cli", "evaluate", step, data, "-n", 4, "--temperature", 1.0, "--max-tokens", 12]
    words += ["--reward", "pkg://tests.stack.reward", "--batch", 12]
    shown = python(*words, "--out", tmp_path / "one")
    assert "avg@4" in shown
    summary = json.loads((tmp_path / "one" / "summary.json").read_text())
    figures = summary["by_source"]["all"]
    assert (figures["questions"], figures["answers"], figures["ungraded"]) == (12, 48, 0)
    assert figures["accuracies"]["avg@4"]["value"] == pytest.approx(figures["accuracies"]["pass@1"]["value"])
    items = [json.loads(line) for line in (tmp_path / "one" / "items.jsonl").read_text().splitlines()]
    assert all(0 < sample["tokens"] <= 12 for item in items for sample in item["samples"])
    assert len({sample["text"] for sample in items[0]["samples"]}) > 1

    merged = step / "actor" / "hf_merged"
    state = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).state_dict()
    whole = AutoModelForCausalLM.from_pretrained(stack_model, dtype=torch.float32).state_dict()
    assert all(torch.equal(state[name], whole[name].bfloat16().float()) for name in whole)

    # Another start, other batches: merged once, and every answer the same.
    before = fingerprint(merged)
    python(*words[:-1], 5, "--out", tmp_path / "two")
    assert fingerprint(merged) == before
    assert (tmp_path / "two" / "items.jsonl").read_text() == (tmp_path / "one" / "items.jsonl").read_text()
