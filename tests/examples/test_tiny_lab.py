"""The tiny laboratory: deterministic, its data true, its tokenizer and model made for each other."""

import dataclasses
import json
import random

import pandas as pd
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from workflows.tiny_lab import build as lab
from workflows.tiny_lab.beginner import Beginner, Faults
from workflows.tiny_lab.model import Size, build_tokenizer, chat_text
from workflows.tiny_lab.task import (
    parse_question,
    question_text,
    read_answer,
    sample_question,
    solution,
    split_questions,
    value,
)
from workflows.tiny_lab.warmup import WarmUp, encode, plain_example, teacher_example

SHORT = lab.Settings(
    n_train=40, n_test=8, size=Size(), warm_up=WarmUp(steps=4, textbook_steps=2, batch=8, teacher_batch=4)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("tiny")
    assert lab.build(out, SHORT, progress=False)
    return out


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(lab.corpus(Beginner(Faults(), 5, 0)), Size())


@pytest.mark.parametrize("p", [5, 7])
def test_solutions_are_true(p):
    rng = random.Random(0)
    for _ in range(500):
        q = sample_question(rng, p)
        assert value(q) == eval(str(q)) % p
        assert read_answer(solution(q)) == str(value(q))
        assert parse_question(question_text(q)) == q
        for line in solution(q).splitlines()[:-1]:
            left, right = line.split(" = ")
            assert eval(left) % p == int(right)


def test_read_answer_takes_the_last_mark_and_needs_one():
    assert read_answer("1 + 1 = 2\n#### 3\n#### 2") == "2"
    assert read_answer("1 + 1 = 2") is None


def test_train_and_test_are_disjoint_and_distinct():
    train, test = split_questions(1024, 128, 5, seed=3)
    assert (len(set(train)), len(set(test))) == (1024, 128)
    assert not set(train) & set(test)


def test_too_many_questions_are_refused():
    with pytest.raises(ValueError, match="ask for at most"):
        split_questions(10**6, 1, 5, seed=0)


def test_a_foreign_question_is_refused():
    with pytest.raises(ValueError, match="expected the form"):
        parse_question("What is 1 + 1?")


def test_same_seed_same_weights_other_seed_other_weights(folder):
    recorded = json.loads((folder / lab.MANIFEST).read_text())["weights_sha256"]
    again, _ = lab.train_model(SHORT, progress=False)
    other, _ = lab.train_model(dataclasses.replace(SHORT, seed=1), progress=False)
    assert lab.weights_hash(again) == recorded
    assert lab.weights_hash(other) != recorded


def test_saved_model_is_the_built_one_and_vocabulary_fits(folder):
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    assert lab.weights_hash(model) == json.loads((folder / lab.MANIFEST).read_text())["weights_sha256"]
    assert model.config.vocab_size == len(tokenizer) == model.get_input_embeddings().num_embeddings
    assert model.config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")


def test_a_complete_build_is_kept_and_other_settings_are_built_anew(folder, monkeypatch):
    assert not lab.build(folder, SHORT, progress=False)
    assert not lab.is_complete(folder, dataclasses.replace(SHORT, n_train=41))

    def interrupted(*_, **__):
        raise RuntimeError("interrupted")

    monkeypatch.setattr(lab, "train_model", interrupted)
    broken = folder.parent / "broken"
    with pytest.raises(RuntimeError):
        lab.build(broken, SHORT, progress=False)
    assert not lab.is_complete(broken, SHORT)


def test_parquet_rows(folder):
    for split, n in (("train", 40), ("test", 8)):
        rows = pd.read_parquet(folder / f"{split}.parquet")
        assert len(rows) == n
        assert list(rows.columns) == ["data_source", "prompt", "ability", "reward_model", "extra_info"]
        for i, row in rows.iterrows():
            q = parse_question(row["prompt"][0]["content"])
            assert (row["data_source"], row["prompt"][0]["role"]) == ("tiny_arithmetic", "user")
            assert row["reward_model"]["ground_truth"] == str(value(q))
            assert row["extra_info"] == {"index": i, "split": split}


@pytest.mark.parametrize("text", ["Compute (3 - 4) * (2 + 1) mod 5.", "Grüße, 世界 🙂\t{}\\boxed{42}", "  a  b\n\n"])
def test_any_text_survives_the_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_chat_template_is_what_the_warm_up_writes(tokenizer):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Compute."}]
    for header in (True, False):
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=header)
        assert rendered == chat_text(messages, add_generation_prompt=header)
    assert rendered == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nCompute.<|im_end|>\n"


def test_prompts_and_responses_are_short(tokenizer):
    rng = random.Random(0)
    for _ in range(50):
        q = sample_question(rng, 5)
        prompt, (piece,) = plain_example(q, solution(q))
        assert len(tokenizer.encode(prompt, add_special_tokens=False)) <= 48
        assert len(tokenizer.encode(piece.text, add_special_tokens=False)) <= 40


def test_no_token_spans_two_pieces(tokenizer):
    """Otherwise the teacher would be trained on other tokens than a rollout holds."""
    rng, beginner = random.Random(0), Beginner(Faults(), 5, 0)
    for _ in range(100):
        prompt, pieces = teacher_example(sample_question(rng, 5), beginner, rng, corrupted=0.5, invented=0.5)
        ids, labels = encode([(prompt, pieces)], tokenizer)
        whole = tokenizer.encode(prompt + "".join(piece.text for piece in pieces), add_special_tokens=False)
        assert ids[0].tolist() == whole
        untrained = sum(
            len(tokenizer.encode(piece.text, add_special_tokens=False)) for piece in pieces if not piece.trained
        )
        n_prompt = len(tokenizer.encode(prompt, add_special_tokens=False))
        assert (labels[0] == -100).sum().item() == n_prompt + untrained


def test_teacher_form_is_the_self_teachers():
    rng, beginner = random.Random(0), Beginner(Faults(), 5, 0)
    q = sample_question(rng, 5)
    prompt, pieces = teacher_example(q, beginner, rng, corrupted=0.0, invented=0.0)
    content = f"{question_text(q)}\nCorrect solution:\n\n{solution(q)}\n\nCorrectly solve the original question."
    assert prompt == chat_text([{"role": "user", "content": content}])
    assert "".join(piece.text for piece in pieces) == solution(q) + "<|im_end|>"
    assert all(piece.trained for piece in pieces)


def test_beginner_is_right_less_than_half_of_the_time():
    rng, beginner = random.Random(0), Beginner(Faults(), 5, 0)
    questions = [sample_question(rng, 5) for _ in range(2000)]
    share = sum(read_answer(beginner.answer(q, rng)) == str(value(q)) for q in questions) / len(questions)
    assert 0.25 < share < 0.45
