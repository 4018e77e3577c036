"""A card says what the run recorded, says what was not, and says nothing else."""

from __future__ import annotations

import json

import yaml

from tests.workflows.report.run_folders import config, line, write_run, write_start
from workflows.export.card import model_card
from workflows.run_reader import read_run


def table(card, first):
    """The rows of the table that begins with `first`, as cells."""
    lines = card.splitlines()
    start = next(number for number, text in enumerate(lines) if text.startswith(f"| {first}"))
    rows = []
    for text in lines[start:]:
        if not text.startswith("|"):
            return rows
        rows.append([part.strip() for part in text.strip("|").split(" | ")])
    return rows


def test_the_numbers_are_the_runs(tmp_path):
    run = read_run(write_run(tmp_path, "srpo", seed=4, steps=20, sources=["chemistry", "physics"]))
    card = model_card(run, 10, name="my_model")
    _, head, text = card.split("---\n", 2)
    assert yaml.safe_load(head)["base_model"] == "Qwen/Qwen3-8B"
    assert "license" not in yaml.safe_load(head)
    assert text.startswith("\n# my_model\n")
    rows = {row[0]: row[1:] for row in table(card, "step ")}
    assert rows["step"] == ["chemistry", "physics"]
    assert [step for step in rows if step.isdigit()] == ["0", "5", "10"]
    for record in run.records:
        if str(record.step) in rows:
            assert rows[str(record.step)] == [f"{100 * value:.1f} %" for value in record.held_out().values()]
    facts = dict(row[:2] for row in table(card, "method"))
    assert facts["method"] == "SRPO"
    assert facts["steps"] == "10 of 20"
    assert facts["seed of the data"] == "4"
    assert facts["versions"] == "verl 0.9.1, torch 2.11.0"
    assert facts["commit of the working folder"] == "`0123456789abcdef`"
    assert facts["prompts x answers per step"] == "32 x 8"
    assert "`val-core/chemistry/acc/mean@16`" in card
    assert ["`data.max_response_length`", "8192", "4096"] in table(card, "key")
    for heading in ("Not known", "not srpo_verl's own"):
        assert heading not in card


def test_what_was_not_recorded_is_said(tmp_path):
    settings = config("grpo", seed=0, steps=5, model="/home/somebody/secret/place/model")
    settings["data"] = {"train_files": ["/home/somebody/secret/maths/train.parquet"]}
    start = write_start(tmp_path, settings, [line(1, srpo__accuracy=0.5)])
    (start / "run.json").unlink()
    card = model_card(read_run(tmp_path), 1, name="x")
    facts = dict(row[:2] for row in table(card, "method"))
    for name in ("versions", "Python", "commit of the working folder", "validated on", "learning rate"):
        assert facts[name] == "not recorded"
    assert facts["teacher"] == "none"
    assert facts["trained on"] == "`maths/train.parquet`"
    assert "The run was not validated up to this checkpoint." in card
    assert "run.json is missing" in card
    assert "somebody" not in card
    assert "base_model" not in card
    assert "a local model (`place/model`), trained with GRPO" in card


def test_variants_teacher_config_and_template(tmp_path):
    settings = config("srpo", seed=0, steps=5, teacher={"kind": "ema", "ema_rate": 0.05})
    settings["data"]["apply_chat_template_kwargs"] = {"enable_thinking": False}
    record = {
        "variants": {"divergence=skew": "my_variants:skew, my-variants 0.1, sha256 00ff"},
        "differs_from_table_3": {},
        "git": {"commit": "abc", "dirty": True},
    }
    write_start(tmp_path, settings, [line(5, **{"val-core__a|b__acc__mean@4": 0.25})], record=record)
    (tmp_path / "summary.json").write_text(json.dumps({"config_name": "srpo_lora"}))
    card = model_card(read_run(tmp_path), 5, name="x")
    facts = dict(row[:2] for row in table(card, "method"))
    assert facts["teacher"] == "ema, rate 0.05"
    assert facts["config"] == "`srpo_lora`"
    assert facts["commit of the working folder"] == "`abc`, with changes that were not committed"
    assert "- `divergence=skew`: my_variants:skew, my-variants 0.1, sha256 00ff" in card
    assert "None of the keys of Table 3" in card
    assert "return_dict=True, enable_thinking=False)" in card
    assert "| step | a\\|b |" in card
    assert "| 5 | 25.0 % |" in card
