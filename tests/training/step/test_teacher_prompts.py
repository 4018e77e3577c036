"""Teacher prompts of a batch: what is decoded, what does not fit, what is dumped."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from srpo_verl.config import SRPOConfig, TeacherConfig
from srpo_verl.training.step.routing_plan import Rollout, build_plan
from srpo_verl.training.step.teacher_prompts import (
    LeftOut,
    TeacherPromptBuilder,
    dump_teacher_prompts,
    max_teacher_prompt_length,
)
from tests.compose import compose
from tests.training import tiny_model

SRPO = SRPOConfig()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return AutoTokenizer.from_pretrained(tiny_model.build(tmp_path_factory.mktemp("model")))


def plan_of(*scores):
    rows = [Rollout(key=f"x_{n}_0", score=float(s), response_length=5) for n, s in enumerate(scores)]
    return build_plan(rows, SRPO)


def builder(tokenizer, max_length=400):
    return TeacherPromptBuilder(tokenizer=tokenizer, srpo=SRPO, max_length=max_length, chat_template_kwargs={})


def test_the_prompt_of_a_failed_rollout(tokenizer, tmp_path):
    plan = plan_of(0, 1)
    answer = [*tokenizer.encode("2 {x} = 4"), tokenizer.eos_token_id]
    messages = {0: [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 {x}?"}]}
    plan, prompts, left_out = builder(tokenizer).build(plan, messages, {1: answer})
    assert left_out == LeftOut()
    text = tokenizer.decode(prompts[0].input_ids)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2 {x}?\nCorrect solution:\n\n2 {x} = 4\n\n"
        "Correctly solve the original question.<|im_end|>\n<|im_start|>assistant\n"
    )
    path = dump_teacher_prompts(str(tmp_path), 3, plan, prompts, {0: tokenizer.encode("5")}, tokenizer)
    (line,) = map(json.loads, Path(path).read_text().splitlines())
    assert (line["rollout"], line["demonstration"], line["provider"]) == (0, 1, "sibling")
    assert (line["teacher_prompt"], line["response"]) == (text, "5")


def test_a_question_that_does_not_fit_goes_to_grpo_and_is_counted(tokenizer):
    messages = {0: [{"role": "user", "content": "long " * 100}]}
    plan, prompts, left_out = builder(tokenizer, max_length=40).build(plan_of(0, 1), messages, {1: [5, 6]})
    assert (left_out, prompts) == (LeftOut(too_long=(0,)), {})
    assert not plan.routed.any()


def test_a_long_demonstration_is_shortened_and_counted(tokenizer):
    messages = {0: [{"role": "user", "content": "2?"}]}
    demonstration = tokenizer.encode("first " * 200 + "the end")
    _, prompts, _ = builder(tokenizer, max_length=160).build(plan_of(0, 1), messages, {1: demonstration})
    assert len(prompts[0].input_ids) <= 160
    assert prompts[0].truncated
    assert prompts[0].dropped_tokens > 0
    text = tokenizer.decode(prompts[0].input_ids)
    assert text.endswith("the end\n\nCorrectly solve the original question.<|im_end|>\n<|im_start|>assistant\n")
    assert text.startswith("<|im_start|>user\n2?\nCorrect solution:\n\n")


def test_feedback_stands_in_for_a_missing_sibling_and_does_not_join_one(tokenizer):
    srpo = SRPOConfig(providers=["sibling", "feedback"])
    rows = [
        Rollout("x_0_0", 0.0, 5, reward_info={"feedback": "Wrong sign."}),
        Rollout("x_1_0", 1.0, 5),
        Rollout("y_0_0", 0.0, 5, reward_info={"feedback": "Off by one."}),
        Rollout("y_1_0", 0.0, 5),
    ]
    messages = {row: [{"role": "user", "content": "2?"}] for row in (0, 2)}
    build = TeacherPromptBuilder(tokenizer=tokenizer, srpo=srpo, max_length=400, chat_template_kwargs={}).build
    _, prompts, _ = build(build_plan(rows, srpo), messages, {1: tokenizer.encode("4")})
    texts = {row: tokenizer.decode(prompt.input_ids) for row, prompt in prompts.items()}
    assert "Correct solution" in texts[0]
    assert "Wrong sign." not in texts[0]
    assert "Off by one." in texts[2]
    assert "Correct solution" not in texts[2]
    assert set(texts) == {0, 2}


def test_limit_of_the_paper():
    """2048 + 8192 + 512 tokens of teacher prompt, and 8192 of response, are the paper's 18944."""
    config = compose("srpo")
    assert max_teacher_prompt_length(config, SRPO) + 8192 == 18944
    assert max_teacher_prompt_length(compose("srpo", ["actor_rollout_ref.rollout.max_model_len=null"]), SRPO) == 10752
    assert max_teacher_prompt_length(config, SRPOConfig(teacher=TeacherConfig(max_prompt_length=99))) == 99
