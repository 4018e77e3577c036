"""Verdicts as they reach the agent loop worker, without Ray: graders that fail, hang, or say what cannot be used."""

import asyncio
from types import SimpleNamespace

import pytest
from ray.exceptions import RayTaskError

from srpo_verl.config import SRPOConfig, WatchdogConfig
from srpo_verl.training.rollout.agent_loop import EmptyResponse, NoVerdict, SRPOAgentLoopWorker
from tests.patience import PROCESS


def graded(monkeypatch, verdict, *, info=None, response=(5, 6), deadline=PROCESS, rewards=True):
    """The last output of a session after verl's `_compute_score` has given it `verdict` (or raised it, or slept)."""

    async def verls(self, outputs, kwargs):
        if isinstance(verdict, Exception):
            raise verdict
        if verdict == "never":
            await asyncio.sleep(100)
        outputs[-1].reward_score = verdict
        outputs[-1].extra_fields["reward_extra_info"] = info or {}

    monkeypatch.setattr(SRPOAgentLoopWorker.__mro__[1], "_compute_score", verls, raising=False)
    worker = object.__new__(SRPOAgentLoopWorker)
    worker.srpo = SRPOConfig(watchdog=WatchdogConfig(reward=deadline))
    worker.reward_loop_worker_handles = [object()] if rewards else None
    output = SimpleNamespace(response_ids=list(response), reward_score=None, extra_fields={})
    asyncio.run(worker._compute_score([output], {"data_source": "gsm8k"}))
    return output


def test_a_good_verdict_passes(monkeypatch):
    output = graded(monkeypatch, 1.0, info={"acc": 1.0, "feedback": ""})
    assert output.reward_score == 1.0
    assert output.extra_fields["reward_extra_info"] == {"acc": 1.0, "feedback": "", "bad_score": ""}


def test_a_bad_verdict_is_an_undecided_zero(monkeypatch):
    output = graded(monkeypatch, float("nan"), info={"acc": float("nan")})
    assert output.reward_score == 0.0
    assert output.extra_fields["reward_extra_info"] == {"acc": 0.0, "infra_error": 1.0, "bad_score": "not_finite"}


@pytest.mark.parametrize("remote", [False, True])
def test_a_dict_without_score_is_a_missing_verdict(monkeypatch, remote):
    error = KeyError("score")
    if remote:
        error = RayTaskError("compute_score", "traceback", error).as_instanceof_cause()
    output = graded(monkeypatch, error)
    assert (output.reward_score, output.extra_fields["reward_extra_info"]["bad_score"]) == (0.0, "missing")


@pytest.mark.parametrize("error", [KeyError("acc"), RuntimeError("broken")])
def test_what_a_grader_raises_stays(monkeypatch, error):
    with pytest.raises(type(error)):
        graded(monkeypatch, error)


def test_a_verdict_that_does_not_come_is_named(monkeypatch):
    with pytest.raises(NoVerdict, match=r"within srpo\.watchdog\.reward=0\.05 s; data source gsm8k"):
        graded(monkeypatch, "never", deadline=0.05)


def test_no_token_is_an_error(monkeypatch):
    with pytest.raises(EmptyResponse):
        graded(monkeypatch, 1.0, response=())


def test_a_reward_model_gives_its_verdicts_later(monkeypatch):
    assert graded(monkeypatch, None, rewards=False).reward_score is None


@pytest.mark.parametrize(("agent", "listed"), [("tool_agent", ["add"]), ("single_turn_agent", [])])
def test_the_tools_that_a_prompt_lists_become_a_field(monkeypatch, agent, listed):
    """verl stores what its agent loop is called with as fields of the rollout."""
    seen = {}

    async def verls(self, sampling_params, trajectory, *, agent_name, **kwargs):
        seen.update(kwargs)

    monkeypatch.setattr(SRPOAgentLoopWorker.__mro__[1], "_run_agent_loop", verls, raising=False)
    worker = object.__new__(SRPOAgentLoopWorker)
    worker.srpo = SRPOConfig()
    schema = SimpleNamespace(model_dump=lambda **_: {"name": "add"})
    worker.tools = [SimpleNamespace(name="add", tool_schema=schema)]
    row = {"agent_name": agent, "raw_prompt": [], "uid": "x", "session_id": 0}
    asyncio.run(worker._run_agent_loop({}, {"validate": False}, **row))
    assert [tool["name"] for tool in seen["srpo_tools"]] == listed
