"""Teacher prompts of a batch: what is decoded, what does not fit, what is dumped."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from srpo_verl.config import SRPOConfig, TeacherConfig
from srpo_verl.training.step.routing_plan import Rollout, build_plan
from srpo_verl.training.step.step_metrics import is_count, prompt_metrics
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
    again = {0: tokenizer.encode("6")}  # of a later mini-batch of the step
    dump_teacher_prompts(str(tmp_path), 3, plan, prompts, again, tokenizer, append=True)
    assert [json.loads(line)["response"] for line in Path(path).read_text().splitlines()] == ["5", "6"]


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


def test_each_prompt_lists_the_tools_of_its_student(tokenizer, monkeypatch):
    template = "{% if tools %}{% for t in tools %}{{ t['name'] }} {% endfor %}{% endif %}"
    monkeypatch.setattr(tokenizer, "chat_template", template + tokenizer.chat_template)
    messages = {row: [{"role": "user", "content": "2?"}] for row in (0, 1, 2)}
    tools = {0: [{"name": "add"}], 1: [{"name": "add"}, {"name": "look_up"}], 2: []}
    _, prompts, _ = builder(tokenizer).build(plan_of(0, 0, 0, 1), messages, {3: tokenizer.encode("4")}, tools)
    starts = [tokenizer.decode(prompts[row].input_ids).partition("<|im_start|>")[0] for row in (0, 1, 2)]
    assert starts == ["add ", "add look_up ", ""]


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


def test_a_teacher_that_is_shown_nothing_reads_what_the_student_reads(tokenizer):
    srpo = SRPOConfig(route="all", providers=["question"], policy_gradient="all")
    rows = [Rollout(key=f"x_{n}_0", score=0.0, response_length=5) for n in range(2)]
    made = TeacherPromptBuilder(tokenizer=tokenizer, srpo=srpo, max_length=400, chat_template_kwargs={})
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 {x}?"}]
    plan, prompts, left_out = made.build(build_plan(rows, srpo), {0: messages, 1: messages}, {})
    assert left_out == LeftOut()
    assert plan.routed.all()
    expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert tokenizer.decode(prompts[0].input_ids) == expected


def with_a_contrast(tokenizer):
    """Builder, plan and messages of two right and two wrong answers, each to be shown two wrong siblings."""
    srpo = SRPOConfig(
        route="none",
        asked="all",
        policy_gradient="all",
        modulator="contrast",
        contrast="wrong_siblings",
        options={"wrong_siblings": {"passes": 2}},
    )
    rows = [Rollout(f"x_{n}_0", score, 5) for n, score in enumerate((1.0, 1.0, 0.0, 0.0))]
    made = TeacherPromptBuilder(tokenizer=tokenizer, srpo=srpo, max_length=400, chat_template_kwargs={})
    messages = {n: [{"role": "user", "content": "2 + 2?"}] for n in range(4)}
    return made, build_plan(rows, srpo), messages


def test_each_pass_of_a_contrast_shows_another_wrong_answer_as_if_it_were_right(tokenizer):
    made, plan, messages = with_a_contrast(tokenizer)
    answers = {n: tokenizer.encode(f"it is {n} <|im_end|>") for n in range(4)}
    plan, prompts, _ = made.build(plan, messages, answers)
    assert sorted(prompts) == [0, 1, 2, 3]
    passes, left_out = made.contrast(plan, messages, answers)
    assert left_out == 0
    assert [sorted(made) for made in passes] == [[0, 1, 2, 3], [0, 1]], "a wrong answer has one wrong sibling"
    texts = [{row: tokenizer.decode(prompt.input_ids) for row, prompt in made.items()} for made in passes]
    assert {text.split("it is ")[1][0] for text in (texts[0][0], texts[1][0])} == {"2", "3"}
    assert "it is 3" in texts[0][2]
    assert "\nCorrect solution:\n\nit is " in texts[0][0]


def test_prompts_of_a_contrast_that_cannot_be_made_are_counted(tokenizer):
    """A blank wrong answer is shown to nobody: one prompt less for each rollout that would have been shown it."""
    made, plan, messages = with_a_contrast(tokenizer)
    answers = {n: tokenizer.encode("<|im_end|>" if n == 3 else f"it is {n} <|im_end|>") for n in range(4)}
    given = (messages, answers)
    plan, prompts, left_out = made.build(plan, *given)
    assert left_out == LeftOut(), "whom the teacher is asked about and what it is shown first is not touched"
    passes, unmade = made.contrast(plan, *given)
    assert sorted(row for of_pass in passes for row in of_pass) == [0, 1, 3]
    metrics = prompt_metrics(list(prompts.values()), replace(left_out, contrast=unmade))
    assert metrics["srpo/contrast/left_out"] == 3
    assert is_count("srpo/contrast/left_out"), "parts of a batch add up"


def test_a_run_without_a_contrast_has_no_metric_of_it(tokenizer):
    made = TeacherPromptBuilder(tokenizer=tokenizer, srpo=SRPO, max_length=400, chat_template_kwargs={})
    passes, unmade = made.contrast(build_plan([Rollout("x_0_0", 0.0, 5)], SRPO), {}, {})
    assert (passes, unmade) == ([], None)
    assert "srpo/contrast/left_out" not in prompt_metrics([], LeftOut(contrast=unmade))
