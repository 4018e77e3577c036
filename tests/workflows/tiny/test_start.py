"""The start of `srpo demo`: deterministic, its data true, its tokenizer and model made for each other."""

import dataclasses
import json
import random

import pandas as pd
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from reward_fns import compute_score
from tests.workflows.tiny.fingerprints import fingerprints
from workflows.tiny import start as tiny
from workflows.tiny.model import build_tokenizer, chat_text
from workflows.tiny.start import Start
from workflows.tiny.task import derivation
from workflows.tiny.texts import TeacherForm, plain_example, teacher_example
from workflows.tiny.warmup import WarmUp, encode

SHORT = Start(train=40, test=8, warm_up=WarmUp(steps=4, clean_steps=2, batch=8, teacher_batch=4))
TASK = SHORT.task()
FORM = TeacherForm(corrupted=0.0, invented=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("tiny")
    assert tiny.build(out, SHORT, progress=False)
    return out


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(SHORT.corpus(), SHORT.size)


def solution(q):
    return TASK.solution(q, random.Random(0))


def test_the_start_is_the_one_of_the_readme():
    assert fingerprints(Start()) == {
        "facts": "caa254d78c1e22fff73f469bfabdd0b5a3710596b9130b9f4a354f2c331282de",
        "questions": "4f7e334208a84d7cc700ae8e6f4c4ad7265bd15f7b9c7b206debf8ba91c4b499",
        "beliefs": "0b4a314270207dbe006a80dfa550c7be6425f183a28137be28cb72e37eeff26b",
        "corpus": "9de09f32fe8e49ba4e44aa9116c17e80e704fb5a1a2c22cd44bd68152f535421",
        "texts": "7ed33904a112795951980a51722f04f69157bae4aeb8d81d6397ad92ebd1711b",
    }


@pytest.mark.parametrize("p", [5, 7])
def test_solutions_are_true(p):
    rng, task = random.Random(0), Start(p=p).task()
    for _ in range(500):
        q = task.sample(rng)
        assert task.value(q) == eval(str(q)) % p
        assert task.parse(task.text(q)) == q
        *lines, answer = task.solution(q, rng).splitlines()
        assert answer == f"#### {task.value(q)}"
        for line in lines:
            left, right = line.split(" = ")
            assert eval(left) % p == int(right)
            fact, result = task.parse_line(line)
            assert task.facts[fact] == result


def test_train_and_test_are_disjoint_and_distinct():
    splits = Start(seed=3).questions()
    assert {name: len(set(questions)) for name, questions in splits.items()} == {"test": 128, "train": 1024}
    assert not set(splits["train"]) & set(splits["test"])


def test_no_held_out_question_is_warmed_up_on():
    start = Start(test=600, validation=400, train=100)
    held_out = {q for split in ("test", "validation") for q in start.questions()[split]}
    stream = start.stream(random.Random(0))
    assert not {next(stream) for _ in range(2000)} & held_out


def test_too_many_questions_are_refused():
    with pytest.raises(ValueError, match="ask for at most"):
        Start(train=10**6).questions()


def test_a_foreign_question_is_refused():
    with pytest.raises(ValueError, match="expected the form 'Compute "):
        TASK.parse("What is 1 + 1?")


def test_same_seed_same_weights_other_seed_other_weights(folder):
    recorded = json.loads((folder / tiny.MANIFEST).read_text())["weights_sha256"]
    again, _ = tiny.train_model(SHORT, progress=False)
    other, _ = tiny.train_model(dataclasses.replace(SHORT, seed=1), progress=False)
    assert tiny.weights_hash(again) == recorded
    assert tiny.weights_hash(other) != recorded


def test_saved_model_is_the_built_one_and_vocabulary_fits(folder):
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    assert tiny.weights_hash(model) == json.loads((folder / tiny.MANIFEST).read_text())["weights_sha256"]
    assert model.config.vocab_size == len(tokenizer) == model.get_input_embeddings().num_embeddings
    assert model.config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")


def test_a_complete_build_is_kept_and_other_settings_are_built_anew(folder, monkeypatch):
    assert not tiny.build(folder, SHORT, progress=False)
    assert not tiny.is_complete(folder, dataclasses.replace(SHORT, train=41))

    def interrupted(*_, **__):
        raise RuntimeError("interrupted")

    monkeypatch.setattr(tiny, "train_model", interrupted)
    broken = folder.parent / "broken"
    with pytest.raises(RuntimeError):
        tiny.build(broken, SHORT, progress=False)
    assert not tiny.is_complete(broken, SHORT)


def test_parquet_rows(folder):
    assert not (folder / "validation.parquet").exists()
    for split, n in (("train", 40), ("test", 8)):
        rows = pd.read_parquet(folder / f"{split}.parquet")
        assert len(rows) == n
        assert list(rows.columns) == ["data_source", "prompt", "ability", "reward_model", "extra_info"]
        for i, row in rows.iterrows():
            q, truth = TASK.parse(row["prompt"][0]["content"]), row["reward_model"]["ground_truth"]
            assert (row["data_source"], row["prompt"][0]["role"]) == ("tiny_arithmetic", "user")
            assert truth == str(TASK.value(q))
            assert row["extra_info"] == {"index": i, "split": split}
            assert compute_score(row["data_source"], solution(q), truth)["score"] == 1.0


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
        q = TASK.sample(rng)
        prompt, (piece,) = plain_example(TASK, q, solution(q))
        assert len(tokenizer.encode(prompt, add_special_tokens=False)) <= 48
        assert len(tokenizer.encode(piece.text, add_special_tokens=False)) <= 40


def test_no_token_spans_two_pieces(tokenizer):
    """Otherwise the teacher would be trained on other tokens than a rollout holds."""
    rng, form = random.Random(0), TeacherForm(corrupted=0.5)
    for _ in range(100):
        prompt, pieces = teacher_example(TASK, TASK.sample(rng), TASK.knows, form, rng)
        ids, labels = encode([(prompt, pieces)], tokenizer)
        whole = tokenizer.encode(prompt + "".join(piece.text for piece in pieces), add_special_tokens=False)
        assert ids[0].tolist() == whole
        untrained = sum(
            len(tokenizer.encode(piece.text, add_special_tokens=False)) for piece in pieces if not piece.trained
        )
        n_prompt = len(tokenizer.encode(prompt, add_special_tokens=False))
        assert (labels[0] == -100).sum().item() == n_prompt + untrained


def test_teacher_form_is_the_self_teachers():
    rng = random.Random(0)
    q = TASK.sample(rng)
    prompt, pieces = teacher_example(TASK, q, TASK.knows, FORM, rng)
    content = f"{TASK.text(q)}\nCorrect solution:\n\n{solution(q)}\n\nCorrectly solve the original question."
    assert prompt == chat_text([{"role": "user", "content": content}])
    assert "".join(piece.text for piece in pieces) == solution(q) + "<|im_end|>"
    assert all(piece.trained for piece in pieces)


def test_the_pupil_is_right_less_than_half_of_the_time():
    rng, pupil = random.Random(0), Start().pupil()
    questions = [TASK.sample(rng) for _ in range(2000)]
    answers = [derivation(q, lambda fact: pupil.state(fact, rng))[-1][1] for q in questions]
    share = sum(answer == TASK.value(q) for q, answer in zip(questions, answers, strict=True)) / len(questions)
    assert 0.25 < share < 0.45
