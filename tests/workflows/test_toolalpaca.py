"""ToolAlpaca as a task of several turns: what the tool answers by a row, and the verdict on the calls."""

import asyncio
import json

import pandas as pd
import pytest

from srpo_verl.core import Call, Turn, turns_to_json
from tests.compose import compose
from workflows import toolalpaca
from workflows.compose_config import compose_config
from workflows.toolalpaca import SCHEMA, TOOL, CallApi, compute_score, functions_of, verl_row

DOCUMENTATION = (
    'getFacts: Facts: of animals.\nParameters: {"kind": "string. One of: [a, b].", "limit": "integer."}\n'
    "Output: Successful response.\n - Format: application/json\n - Structure: Array[Object{fact, source}]\n"
    "ping: Says it is there.\nParameters: {}\nOutput: pong\n"
)
ROW = {
    "prompt": "Your task is to answer.\nName: Animals\nDescription: Facts\nDocumentation:\n"
    + DOCUMENTATION
    + "\n\nUse the following format:\nThought: x\nAction: y\n\nBegin!\nQuestion: Three facts, please.",
    "answer": json.dumps([{"Action": "getFacts", "Action_Input": '{"limit": 3}'}]),
}


def tool():
    from verl.tools.schemas import OpenAIFunctionToolSchema

    return CallApi({"type": "native"}, OpenAIFunctionToolSchema.model_validate(SCHEMA))


def call(parameters, documentation=DOCUMENTATION):
    async def lifecycle(one):
        name, _ = await one.create(create_kwargs={"documentation": documentation})
        try:
            return (await one.execute(name, parameters))[0].text
        finally:
            await one.release(name)
            assert not one.apis

    return asyncio.run(lifecycle(tool()))


def test_functions_of_a_row():
    found = functions_of(DOCUMENTATION)
    assert list(found) == ["getFacts", "ping"]
    assert list(found["getFacts"].parameters) == ["kind", "limit"]
    assert found["ping"].output == "pong"
    with pytest.raises(ValueError, match="no function is described"):
        functions_of("nothing")


def test_the_tool_answers_by_the_documentation():
    assert call({"function": "ping", "arguments": {}}) == "pong"
    assert call({"function": "getFacts", "arguments": {"limit": 3}}).endswith("Array[Object{fact, source}]")
    with pytest.raises(ValueError, match="no function 'fly'; there are getFacts, ping"):
        call({"function": "fly"})
    with pytest.raises(ValueError, match="getFacts has no parameter size; it has kind, limit"):
        call({"function": "getFacts", "arguments": {"size": 1}})
    with pytest.raises(TypeError, match="must be an object"):
        call({"function": "ping", "arguments": [1]})


def verdict(*calls, failed=False):
    turns = [Turn("assistant", "", tuple(Call(TOOL, one) for one in calls)), Turn("tool", "ok", failed=failed)]
    return compute_score("toolalpaca", "", ROW["answer"], {"srpo_turns": turns_to_json(turns)})


def test_the_verdict_is_on_the_calls_of_all_turns():
    assert verdict({"function": "getFacts", "arguments": {"limit": 3}})["score"] == 1.0
    assert verdict({"function": "getFacts", "arguments": {"limit": "3"}})["score"] == 0.0
    assert verdict({"function": "ping", "arguments": {}})["feedback"] == "Call 1 uses the wrong tool: ping."
    assert verdict()["feedback"] == "No function was called."
    assert verdict({"function": "ping"}, failed=True)["format_ok"] == 0.0
    assert verdict("[1]")["score"] == 0.0


def test_rows_and_tool_config(tmp_path, monkeypatch, capsys):
    source = tmp_path / "rows.json"
    source.write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, "prompt": "no question"}) + "\n")
    out = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["toolalpaca", str(source), str(source), "--out", str(out)])
    toolalpaca.main()
    assert "train: 1 rows; 1 left out, e.g. row 1 has no question" in capsys.readouterr().out
    (row,) = pd.read_parquet(out / "train.parquet").to_dict("records")
    content = row["prompt"][0]["content"]
    assert content.endswith(f"with {TOOL}, with values from the question only.\nQuestion: Three facts, please.")
    assert "Action:" not in content
    kwargs = row["extra_info"]["tools_kwargs"][TOOL]["create_kwargs"]
    assert kwargs["documentation"].strip() == DOCUMENTATION.strip()

    from verl.tools.tool_registry import load_all_tools

    (loaded,) = load_all_tools(str(out / "tools.yaml"), None)
    assert loaded.name == TOOL
    assert verl_row(ROW, 0, "train")["data_source"] == "toolalpaca"


def test_the_gpu_config_composes():
    config = compose_config("examples/agent/srpo_toolalpaca.yaml", ["toolalpaca.folder=/data"])
    assert config.actor_rollout_ref.rollout.multi_turn.tool_config_path == "/data/tools.yaml"
    assert config.srpo.teacher.demonstration == "conversation"
    assert compose("srpo").srpo.teacher.demonstration == "text"
