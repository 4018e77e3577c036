"""Which tools a rollout's prompt lists, by verl's rules."""

from types import SimpleNamespace

from srpo_verl.training.rollout.tool_schemas import has_tools, listed_schemas


class Schema:
    def __init__(self, name):
        self.name = name

    def model_dump(self, *, exclude_unset, exclude_none):
        assert exclude_unset
        assert exclude_none
        return {"type": "function", "function": {"name": self.name}}


TOOLS = [SimpleNamespace(name=name, tool_schema=Schema(name)) for name in ("add", "look_up")]


def names(row, **options):
    return [schema["function"]["name"] for schema in listed_schemas(TOOLS, row, **options)]


def test_all_of_them_or_those_that_the_row_selects():
    assert names({}, by_tool_agent=True) == ["add", "look_up"]
    assert names({"extra_info": {"tool_selection": ["look_up", "unknown"]}}, by_tool_agent=True) == ["look_up"]
    assert names({"extra_info": None}, by_tool_agent=True) == ["add", "look_up"]


def test_an_agent_loop_that_lists_none():
    assert names({}, by_tool_agent=False) == []


def test_whether_a_run_has_tools():
    assert not has_tools({"tool_config_path": None, "function_tool_path": None})
    assert has_tools({"tool_config_path": "tools.yaml"})
    assert has_tools({"function_tool_path": "tools.py"})
