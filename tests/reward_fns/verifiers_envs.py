"""Environments of `verifiers` for the tests: ones to train in, and ones that are refused."""

import asyncio

import verifiers as vf
from datasets import Dataset

PARSER = vf.XMLParser(["thought", "answer"])
SHOWN = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "<answer>2</answer>"}]


def text(completion):
    return completion[-1]["content"]


def correct(parser, completion, answer):
    while "hang" in text(completion):
        pass
    return float(parser.parse_answer(completion) == answer)


def within(completion, info, **kwargs):
    """Raises for an answer that is no number."""
    return float(int(PARSER.parse_answer(completion)) <= info["most"])


async def asked(prompt, state, level):
    await asyncio.sleep(0)
    return level if prompt[-1]["content"] in text(state["prompt"]) else 0.0


def best_of(completions):
    return [1.0 for _ in completions]


class Conversation(vf.MultiTurnEnv):
    async def env_response(self, messages, state, **kwargs):
        return [{"role": "user", "content": "and then?"}]


class Broken(vf.SingleTurnEnv):
    async def setup_state(self, state):
        raise vf.Error("no place to work in")


class Judged(vf.JudgeRubric):
    def __init__(self):
        super().__init__(judge_client=object())
        self.add_reward_func(correct)


def sums(first, number):
    rows = [
        {"question": f"{n} + {n}?", "answer": str(2 * n), "info": {"most": 10}, "level": 0.5}
        for n in range(first, first + number)
    ]
    return Dataset.from_list(rows)


def load_environment(kind="sums", rows=8, test_rows_of_its_own=0):
    kinds = {"several turns": Conversation, "broken": Broken}
    rubrics = {
        "judge": Judged,
        "group": lambda: vf.Rubric(funcs=[best_of]),
        "unweighted": lambda: vf.Rubric(funcs=[correct], weights=[0.0], parser=PARSER),
        "none": vf.Rubric,
        "maths": vf.MathRubric,
    }
    rubric = rubrics.get(kind, lambda: vf.Rubric([correct, within, asked], weights=[1.0, 0.5, 0.25], parser=PARSER))()
    environment = kinds.get(kind, vf.SingleTurnEnv)(
        dataset=sums(1, rows),
        eval_dataset=sums(100, test_rows_of_its_own) if test_rows_of_its_own else None,
        system_prompt="Add up.",
        few_shot=SHOWN,
        parser=rubric.parser if kind == "maths" else PARSER,
        rubric=rubric,
        tool_defs=[{"name": "add", "description": "", "parameters": {}}] if kind == "tools" else None,
    )
    return vf.EnvGroup([environment], env_names=["one"]) if kind == "group of environments" else environment
